/**
 * A script of Lua, sent by its hash. A server that does not know it (it was restarted, or another one took over) says so
 * and has done nothing, and is then sent the text.
 */
import { createHash } from "node:crypto";
import { FenceError } from "../errors.js";
import { isReply, type RedisBytes, type RedisPort, replyCode } from "./client.js";

export class Script {
  readonly #text: string;
  readonly #sha: string;

  constructor(text: string) {
    this.#text = text;
    this.#sha = createHash("sha1").update(text).digest("hex");
  }

  async run(redis: RedisPort, keys: RedisBytes[], args: RedisBytes[]): Promise<unknown> {
    try {
      return await redis.evalSha(this.#sha, keys, args);
    } catch (error) {
      if (!isReply(error) || replyCode(error) !== "NOSCRIPT") throw error;
      return await redis.eval(this.#text, keys, args);
    }
  }
}

/** What to tell when no answer came. */
export interface Silence {
  readonly code: "UNREACHABLE" | "OUTCOME_UNKNOWN";
  readonly message: string;
  readonly resource?: string;
  readonly token?: number;
}

/**
 * Waits for an answer, `timeoutMs` at most. An answer that is an error passes through as the driver threw it. Where there
 * is no answer, because of the time or a broken connection, `silence` is thrown; the command may still be carried out.
 */
export async function answered<T>(reply: Promise<T>, timeoutMs: number, silence: Silence): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const { code, message, ...details } = silence;
  const tooLate = new Promise<never>((_, reject) => {
    timer = setTimeout(() => {
      reject(new FenceError(code, `${message}: no answer of Redis within ${timeoutMs} ms`, details));
    }, timeoutMs);
  });
  try {
    return await Promise.race([reply, tooLate]);
  } catch (error) {
    if (isReply(error) || FenceError.is(error) || error instanceof TypeError) throw error;
    throw new FenceError(code, `${message}: the connection to Redis failed`, { ...details, cause: error });
  } finally {
    clearTimeout(timer);
  }
}

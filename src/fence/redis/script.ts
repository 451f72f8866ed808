/**
 * A script of Lua, sent by its hash. A server that does not know it (it was restarted, or another one took over) says so
 * and has done nothing, and is then sent the text.
 */
import { createHash } from "node:crypto";
import { isReply, type RedisBytes, type RedisPort, replyCode } from "./client.js";

export class Script {
  readonly #text: string;
  readonly #sha: string;

  constructor(text: string) {
    this.#text = text;
    this.#sha = createHash("sha1").update(text).digest("hex");
  }

  run(redis: RedisPort, keys: RedisBytes[], args: RedisBytes[]): Promise<unknown> {
    return redis.evalSha(this.#sha, keys, args).catch((error: unknown) => {
      if (!isReply(error) || replyCode(error) !== "NOSCRIPT") throw error;
      return redis.eval(this.#text, keys, args);
    });
  }
}

/** The records of a cache in one Redis: runs their scripts, and reads their replies. */
import { FenceError, show } from "../errors.js";
import { Answers } from "../redis/answers.js";
import { type RedisPort, replyList, replyText } from "../redis/client.js";
import type { Script } from "../redis/script.js";
import {
  fillScript,
  finishScript,
  giveUpScript,
  hitScript,
  lookScript,
  MARKS_MAX,
  markScript,
  type Records,
  recordsOf,
} from "./records.js";

/** How long things live, in milliseconds; see the options of the cache. */
export interface Times {
  readonly ttlMs: number;
  readonly staleMs: number;
  readonly fillMs: number;
  readonly markMs: number;
  readonly positionMs: number;
  readonly timeoutMs: number;
}

/** What a look at a key without a value found. */
export interface Missing {
  /** fill: the caller, and nobody else, may fill the key. busy: somebody fills it, or is about to change it. */
  readonly is: "fill" | "busy";
  readonly stale: string | undefined;
  readonly positions: readonly string[];
  readonly primary: boolean;
}

export type Look = { readonly is: "hit"; readonly text: string } | Missing;

/** What to leave behind at the end of a change. */
export interface Finish {
  /** Where it was committed. null: that is not known. Undefined: positions are not used. */
  readonly position: string | null | undefined;
  /** The encoded value that was written. */
  readonly text: string | undefined;
}

const isKnown = (position: string) => position.startsWith("=");

export class Store {
  readonly #redis: RedisPort;
  readonly #prefix: string;
  readonly #times: Times;
  readonly #answers: Answers;

  constructor(redis: RedisPort, prefix: string, times: Times) {
    this.#redis = redis;
    this.#prefix = prefix;
    this.#times = times;
    this.#answers = new Answers(times.timeoutMs);
  }

  /** Throws INVALID for what is no key. */
  records(key: unknown): Records {
    return recordsOf(this.#prefix, key);
  }

  /** The value, if it is there. One round trip, and the cheapest there is. */
  async hit(records: Records): Promise<string | undefined> {
    const reply = await this.#run(hitScript, [records[0]], [], "what the cache has");
    return reply === null || reply === undefined ? undefined : replyText(reply);
  }

  /** What to do about a key whose value is missing: it may be there by now. */
  async look(records: Records, id: string, acceptStale: boolean): Promise<Look> {
    const args = [id, String(this.#times.fillMs), acceptStale ? "1" : "0"];
    const reply = await this.#run(lookScript, records, args, "what the cache has");
    if (!Array.isArray(reply)) return { is: "hit", text: replyText(reply) };
    const [mayFill, hasStale, stale, ...positions] = replyList(reply).map(replyText);
    return {
      is: mayFill === "1" ? "fill" : "busy",
      stale: hasStale === "1" ? stale : undefined,
      positions: positions.filter(isKnown).map((position) => position.slice(1)),
      primary: !positions.every(isKnown),
    };
  }

  /** Resolves with whether the value has landed. */
  async fill(records: Records, id: string, text: string): Promise<boolean> {
    const reply = await this.#run(
      fillScript,
      records,
      [id, text, String(this.#times.ttlMs)],
      "whether the value is there",
    );
    return replyText(reply) === "1";
  }

  async giveUp(records: Records, id: string): Promise<void> {
    await this.#run(giveUpScript, records, [id], "whether others may fill");
  }

  /** Rejects LIMIT when too many writers have begun and not finished. */
  async mark(records: Records, id: string): Promise<void> {
    const { markMs, staleMs, positionMs } = this.#times;
    const args = [id, ...[markMs, staleMs, positionMs].map(String)];
    const reply = await this.#run(markScript, records, args, "whether the value is marked as stale");
    if (replyText(reply) === "1") return;
    throw new FenceError("LIMIT", `${MARKS_MAX} changes of ${show(records[0])} have begun and not been finished`);
  }

  /** The value lands if the writer was alone. */
  async finish(records: Records, id: string, { position, text }: Finish): Promise<void> {
    const { positionMs, ttlMs } = this.#times;
    const where = position === undefined ? "" : position === null ? "?" : `=${position}`;
    const args = [id, String(positionMs), where, String(ttlMs), ...(text === undefined ? [] : [text])];
    await this.#run(finishScript, records, args, "whether the old value is gone");
  }

  #run(script: Script, keys: string[], args: string[], what: string): Promise<unknown> {
    return this.#answers.within(script.run(this.#redis, keys, args), () => ({ code: "UNREACHABLE", what }));
  }
}

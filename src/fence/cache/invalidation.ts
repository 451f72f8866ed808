/**
 * A change of what is cached, in two phases around the commit of the source.
 *
 * One phase is not enough, neither before the commit nor behind it:
 *
 *     writer deletes the value                  writer commits
 *     reader finds nothing, reads the old       writer crashes
 *     reader fills the old                      the old value is served until its time is over
 *     writer commits
 *     the old value is served ...
 *
 * So the mark comes before the commit: from then on the value is stale and no fill lands. And what comes after it deletes
 * the value, and revokes the fills of those who may have read before the commit. A writer that crashes in between leaves its
 * mark, which is forgotten after a while; the value then counts as missing, since it was moved away by the mark.
 */
import { randomUUID } from "node:crypto";
import { FenceError, invalid, show } from "../errors.js";
import { checkKeys } from "../token.js";
import type { Records } from "./records.js";
import type { Finish, Store } from "./store.js";

const KEYS_MAX = 1_000;
const POSITION_CHARS_MAX = 512;

export interface FinishOptions {
  /**
   * A position of the source that lies behind the commit, such as `session.position` of a causal session. Fills that
   * read a replica wait for it.
   */
  readonly position?: string | undefined;
}

/** A change that was announced and has to be finished. */
export interface Invalidation {
  readonly keys: readonly string[];
  /**
   * For how many milliseconds more the marks stand for certain; 0: nothing is certain. The commit must be over by then:
   * else, if the writer crashes before `finish`, the old value may be served until its time is over.
   */
  remainingMs(): number;
  /**
   * The second phase: deletes the values, and revokes fills that have begun before. To be called after the commit, also
   * when it failed or its outcome is unknown. May be repeated. Rejects UNREACHABLE.
   */
  finish(options?: FinishOptions): Promise<void>;
}

/** The keys and their records, each key once. Throws INVALID. */
export function recordsOfAll(store: Store, keys: readonly string[]): Map<string, Records> {
  if (!Array.isArray(keys) || keys.length === 0 || keys.length > KEYS_MAX) {
    throw invalid(`1 to ${KEYS_MAX} keys can be marked at once, not ${show(keys)}`);
  }
  return new Map(keys.map((key) => [key, store.records(key)]));
}

/** Throws INVALID unless it is a position, or undefined. */
export function checkPosition(position: unknown): string | undefined {
  if (position === undefined) return undefined;
  if (typeof position === "string" && position !== "" && position.length <= POSITION_CHARS_MAX) return position;
  throw invalid(`a position must be text of 1 to ${POSITION_CHARS_MAX} characters, not ${show(position)}`);
}

export class MarkedKeys implements Invalidation {
  readonly #store: Store;
  readonly #records: ReadonlyMap<string, Records>;
  readonly #id: string;
  readonly #untilMs: number;

  private constructor(store: Store, records: ReadonlyMap<string, Records>, id: string, untilMs: number) {
    this.#store = store;
    this.#records = records;
    this.#id = id;
    this.#untilMs = untilMs;
  }

  /** The first phase. When it fails for one key, it is undone for the others as far as possible. */
  static async mark(store: Store, records: ReadonlyMap<string, Records>, markMs: number): Promise<MarkedKeys> {
    // Redis counts from later on. One hundredth is for its clock, if it runs faster.
    const untilMs = performance.now() + 0.99 * markMs;
    const marked = new MarkedKeys(store, records, randomUUID(), untilMs);
    const outcomes = await Promise.allSettled([...records.values()].map((one) => store.mark(one, marked.#id)));
    const failed = outcomes.find((outcome) => outcome.status === "rejected");
    if (failed === undefined) return marked;
    await marked.finish().catch(() => {}); // else the marks are forgotten after their time
    throw failed.reason;
  }

  get keys(): readonly string[] {
    return [...this.#records.keys()];
  }

  remainingMs(): number {
    return Math.max(0, this.#untilMs - performance.now());
  }

  /** Throws UNREACHABLE when the marking has taken so long that the marks may be forgotten already. */
  checkTime(): void {
    if (this.remainingMs() > 0) return;
    throw new FenceError("UNREACHABLE", "marking the keys as stale took longer than the marks last: nothing is done");
  }

  async finish(options: FinishOptions = {}): Promise<void> {
    checkKeys(options, ["position"], "the options of finish");
    await this.finishWith({ position: checkPosition(options.position), text: undefined });
  }

  async finishWith(finish: Finish): Promise<void> {
    const all = [...this.#records.values()].map((one) => this.#store.finish(one, this.#id, finish));
    const outcomes = await Promise.allSettled(all);
    for (const outcome of outcomes) if (outcome.status === "rejected") throw outcome.reason;
  }
}

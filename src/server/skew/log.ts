/**
 * Tells the log of clients whose clock goes wrong or comes right again: once for each change, and no more than so many in
 * a minute. When the server's own clock is set, every client changes at once.
 */
import type { Logger } from "../log.js";
import type { ClientClock } from "./report.js";

const LINES_PER_MINUTE_MAX = 60;
const MINUTE_MS = 60_000;

export class SkewLog {
  readonly #log: Pick<Logger, "info" | "warn">;
  #minuteBeganMs = Number.NEGATIVE_INFINITY;
  #told = 0;
  #leftOut = 0;

  constructor(log: Pick<Logger, "info" | "warn">) {
    this.#log = log;
  }

  /** `nowMs` never goes back. */
  changed(clock: ClientClock, skewed: boolean, nowMs: number): void {
    if (nowMs - this.#minuteBeganMs >= MINUTE_MS) {
      this.#minuteBeganMs = nowMs;
      this.#told = 0;
    }
    if (this.#told === LINES_PER_MINUTE_MAX) {
      this.#leftOut++;
      return;
    }
    this.#told++;
    const leftOut = this.#leftOut === 0 ? {} : { leftOutBefore: this.#leftOut };
    this.#leftOut = 0;
    const { owner, client, leaseDisplayId, offsetMs, errorMs } = clock;
    const who = { owner, ...(client === "" ? {} : { client }), ...(leaseDisplayId === "" ? {} : { leaseDisplayId }) };
    const error = Number.isFinite(errorMs) ? { errorMs: Math.ceil(errorMs) } : {};
    const facts = { ...who, offsetMs: Math.round(offsetMs), ...error, ...leftOut };
    if (skewed) this.#log.warn(facts, "the wall clock of a client is off; no lock or lease depends on it");
    else this.#log.info(facts, "the wall clock of a client is right again");
  }
}

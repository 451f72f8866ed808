import type { TimeSource } from "../clock/elapsed.js";

/** Notices that nothing has been held or awaited for a while. */
export class Idleness {
  readonly #time: TimeSource;
  readonly #idleMs: number;
  readonly #alarmBy: (atMs: number) => void;
  #sinceMs = Number.POSITIVE_INFINITY;

  constructor(time: TimeSource, idleMs: number, alarmBy: (atMs: number) => void) {
    this.#time = time;
    this.#idleMs = idleMs;
    this.#alarmBy = alarmBy;
  }

  /** Nothing is held or awaited. */
  begin(): void {
    if (this.#sinceMs < Number.POSITIVE_INFINITY) return;
    this.#sinceMs = this.#time.nowMs();
    this.#alarmBy(this.restAtMs);
  }

  /** Something is. */
  end(): void {
    this.#sinceMs = Number.POSITIVE_INFINITY;
  }

  /** When to begin to leave; infinite while there is reason to stay. */
  get restAtMs(): number {
    return this.#sinceMs + this.#idleMs;
  }

  /** When to leave even if the server has not confirmed what it was told. */
  get leaveAtMs(): number {
    return this.#sinceMs + 2 * this.#idleMs;
  }
}

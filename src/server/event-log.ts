/**
 * What the log tells of locks: the rare events that somebody will ask about later. All else is for watchers and metrics.
 *
 * A forced release is an administrator's doing, so all of it is told. Deadlocks are made by clients, which may make them
 * as fast as they please: only so many are told in a minute, and of each only the first waits.
 *
 * A lock's name is `lock` here: what is called `name` the readable form of the log prints as it stands, line breaks
 * included.
 */
import type { CoreEvent, KnotWait } from "./core/types.js";
import type { Logger } from "./log.js";

const DEADLOCKS_PER_MINUTE_MAX = 60;
/** Waits of one deadlock, and lock names of one wait. */
const LISTED_MAX = 8;
const MINUTE_MS = 60_000;

export class EventLog {
  readonly #log: Logger;
  readonly #nowMs: () => number;
  #minuteBeganMs = Number.NEGATIVE_INFINITY;
  #deadlocksTold = 0;
  #deadlocksLeftOut = 0;

  /** `nowMs` never goes back. */
  constructor(log: Logger, nowMs: () => number) {
    this.#log = log;
    this.#nowMs = nowMs;
  }

  event(event: CoreEvent): void {
    switch (event.kind) {
      case "revoking": {
        const { name, token, hold, message } = event;
        this.#log.info(
          { lock: name, token, owner: hold.owner, reason: message },
          "a lock is being taken away from its holder",
        );
        break;
      }
      case "holdEnded": {
        const { name, token, heldMs, message } = event;
        if (event.end !== "forced") break;
        this.#log.info(
          { lock: name, token, heldMs: Math.round(heldMs), reason: message },
          "a lock was taken away from its holder",
        );
        break;
      }
      case "deadlock":
        this.#deadlock(event.knot);
        break;
      case "halted":
        this.#log.fatal({ reason: event.why }, "nothing is granted any more");
        break;
    }
  }

  #deadlock(knot: readonly KnotWait[]): void {
    const nowMs = this.#nowMs();
    if (nowMs - this.#minuteBeganMs >= MINUTE_MS) {
      this.#minuteBeganMs = nowMs;
      this.#deadlocksTold = 0;
    }
    if (this.#deadlocksTold === DEADLOCKS_PER_MINUTE_MAX) {
      this.#deadlocksLeftOut++;
      return;
    }
    this.#deadlocksTold++;
    const leftOut = this.#deadlocksLeftOut === 0 ? {} : { leftOutBefore: this.#deadlocksLeftOut };
    this.#deadlocksLeftOut = 0;
    const refused = knot.at(-1)?.ticketId;
    this.#log.info(
      { refused, waits: knot.length, knot: knot.slice(0, LISTED_MAX).map(listed), ...leftOut },
      "a deadlock: the youngest wait is refused",
    );
  }
}

const listed = ({ ticketId, owner, waitsFor, holds }: KnotWait) => ({
  ticket: ticketId,
  owner,
  waitsFor: waitsFor.slice(0, LISTED_MAX),
  holds: holds.slice(0, LISTED_MAX),
});

import { Emitter } from "../emitter.js";
import { LeaseholdError } from "../errors.js";
import { isFatal, unreachableError } from "./failure.js";
import type { LinkState } from "./link.js";

export interface SessionEvents {
  state: LinkState;
  warning: LeaseholdError;
}

/** What the user is told of the connection, apart from the answers to commands. */
export class Reports {
  readonly events = new Emitter<SessionEvents>();
  #lastFailure: LeaseholdError | null = null;
  #warnedOfClock = false;

  /** The stream could not be had, or broke. */
  failed(failure: LeaseholdError): void {
    this.#lastFailure = failure;
  }

  succeeded(): void {
    this.#lastFailure = null;
  }

  /** Why the server will not have this client, if that is so. */
  get refusal(): LeaseholdError | null {
    return this.#lastFailure && isFatal(this.#lastFailure) ? this.#lastFailure : null;
  }

  /** What to tell those who wait for an answer from there no longer. */
  unreachable(address: { readonly text: string; readonly local: boolean }): LeaseholdError {
    return unreachableError(address.text, address.local, this.#lastFailure);
  }

  /** Something that nobody waits for went wrong; if nobody listens either, the process is warned. */
  warn(warning: LeaseholdError): void {
    if (this.events.emit("warning", warning)) return;
    process.emitWarning(warning.message, { type: "LeaseholdWarning", code: warning.code });
  }

  /** The server does not follow this process's Lamport clock. Said once. */
  clockAhead(aheadBy: number): void {
    if (this.#warnedOfClock) return;
    this.#warnedOfClock = true;
    const message = `this process's Lamport clock is ${aheadBy} further ahead than the server follows`;
    this.warn(new LeaseholdError("CLOCK_JUMP", message));
  }
}

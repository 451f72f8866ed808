import type { LeaseholdError } from "../errors.js";
import { Command, type WireCommand, type WireResult } from "./command.js";
import { failureOf, unexpected } from "./failure.js";
import type { Session } from "./session.js";

/** A question that is answered at once and changes nothing that is held. */
export class Query<T> extends Command {
  readonly wire: WireCommand & { seq: number };
  override readonly urgent: boolean;
  readonly #session: Session;
  readonly #answer: (result: WireResult) => T | undefined;
  readonly #resolve: (value: T) => void;
  readonly #reject: (error: unknown) => void;

  /** `inTurn`: after what was asked before, instead of ahead of it. */
  constructor(
    session: Session,
    wire: WireCommand,
    inTurn: boolean,
    answer: (result: WireResult) => T | undefined,
    resolve: (value: T) => void,
    reject: (error: unknown) => void,
  ) {
    super();
    this.#session = session;
    this.wire = { ...wire, seq: 0 };
    this.urgent = !inTurn;
    this.#answer = answer;
    this.#resolve = resolve;
    this.#reject = reject;
    this.deadlineMs = session.time.nowMs() + session.patienceMs;
  }

  override get bytesMax(): number {
    return 4_096;
  }

  override onResult(result: WireResult): void {
    if (!this.#session.settle(this)) return;
    const value = this.#answer(result);
    if (value !== undefined) this.#resolve(value);
    else this.#reject(result.failure ? failureOf(result.failure) : unexpected("a question"));
  }

  override onDeadline(): void {
    this.onFailure(this.#session.unreachable());
    this.#session.abandoned(this);
  }

  override onSessionLost(): void {
    this.#session.resubmit(this);
  }

  override onFailure(error: LeaseholdError): void {
    if (this.#session.settle(this)) this.#reject(error);
  }
}

/** Asks, and resolves with what `answer` takes from the result. */
export function ask<T>(
  session: Session,
  wire: WireCommand,
  answer: (result: WireResult) => T | undefined,
  inTurn = false,
): Promise<T> {
  return new Promise((resolve, reject) => session.submit(new Query(session, wire, inTurn, answer, resolve, reject)));
}

import { Command, type WireResult } from "./command.js";
import { failureOf } from "./failure.js";
import type { Session } from "./session.js";

/** How long to wait before a refused withdrawal is tried again, if the server does not say. */
const RETRY_MS = 200;

/** Withdraws an acquire: its place in the queues, or what was granted when the withdrawal crossed the grant. */
export class CancelAcquire extends Command {
  readonly wire;
  override readonly awaited = false;
  override readonly urgent = true;
  readonly #session: Session;

  constructor(session: Session, seq: number) {
    super();
    this.#session = session;
    this.wire = { seq: 0, cancelAcquire: { sessionAcquire: seq } };
  }

  override onResult(result: WireResult): void {
    const error = result.failure ? failureOf(result.failure) : null;
    if (error?.retryable) this.#again(error.retryAfterMs || RETRY_MS);
    else this.#session.settle(this);
  }

  /** Unless the stream broke meanwhile: then the resumption has settled it. */
  #again(delayMs: number): void {
    const { generation, time } = this.#session;
    time.setTimer(delayMs, () => {
      if (generation !== this.#session.generation) return;
      this.wire.seq = 0;
      this.#session.submit(this);
    });
  }

  /** What it withdraws is not named when the session resumes, and so is undone by that. */
  override onDisconnect(): boolean {
    return false;
  }

  override onSessionLost(): void {
    this.#session.settle(this);
  }

  override onFailure(): void {
    this.#session.settle(this);
  }
}

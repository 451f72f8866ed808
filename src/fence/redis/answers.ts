/**
 * Answers of Redis, within a time limit. Drivers wait for one as long as it takes: with a server that is stopped, for ever.
 *
 * All answers have the same limit, so they run out in the order in which they were asked for, and one timer at a time is
 * enough: setting and clearing one for each command would cost a tenth of the command.
 */
import { FenceError } from "../errors.js";
import { isReply } from "./client.js";

/** What to tell when no answer came. */
export interface Silence {
  readonly code: "UNREACHABLE" | "OUTCOME_UNKNOWN";
  /** What may have happened or not. */
  readonly what: string;
  readonly resource?: string;
  readonly token?: number;
}

interface Waiting {
  readonly untilMs: number;
  tooLate(): void;
}

function unanswered({ code, what, ...details }: Silence, why: string, cause?: unknown): FenceError {
  return new FenceError(code, `${why}; it is not known ${what}`, cause === undefined ? details : { ...details, cause });
}

export class Answers {
  readonly #timeoutMs: number;
  /** In the order of their ends. As many as the driver has commands on their way. */
  readonly #waiting = new Set<Waiting>();
  #timer: NodeJS.Timeout | undefined;

  constructor(timeoutMs: number) {
    this.#timeoutMs = timeoutMs;
  }

  /**
   * An answer that is an error passes through as the driver threw it. Where there is no answer, because of the time or a
   * broken connection, the `silence` is thrown; the command may still be carried out.
   */
  within<T>(answer: Promise<T>, silence: () => Silence): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      const waiting: Waiting = {
        untilMs: performance.now() + this.#timeoutMs,
        tooLate: () => reject(unanswered(silence(), `no answer of Redis within ${this.#timeoutMs} ms`)),
      };
      this.#add(waiting);
      answer.then(
        (value) => {
          this.#waiting.delete(waiting);
          resolve(value);
        },
        (error) => {
          this.#waiting.delete(waiting);
          const passes = isReply(error) || FenceError.is(error) || error instanceof TypeError;
          reject(passes ? error : unanswered(silence(), "the connection to Redis failed", error));
        },
      );
    });
  }

  #add(waiting: Waiting): void {
    this.#waiting.add(waiting);
    this.#timer ??= this.#arm(this.#timeoutMs);
  }

  #arm(inMs: number): NodeJS.Timeout {
    // After a stall of this process answers may lie in the socket: they are read before setImmediate runs.
    const timer = setTimeout(() => setImmediate(() => this.#runOut()), inMs);
    return timer.unref(); // the connection keeps the process alive, if anything shall
  }

  #runOut(): void {
    this.#timer = undefined;
    const nowMs = performance.now();
    for (const waiting of this.#waiting) {
      if (waiting.untilMs > nowMs) {
        this.#timer = this.#arm(Math.ceil(waiting.untilMs - nowMs));
        return;
      }
      this.#waiting.delete(waiting);
      waiting.tooLate();
    }
  }
}

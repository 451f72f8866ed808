/**
 * A connection out of the user's pool, for as long as one transaction lasts.
 *
 * - The server may end it at any time: a time limit has run out while its process stood still. The driver says so by an
 *   `error` event, which would end the process if nobody listened.
 * - One statement at a time, in the order of the calls.
 * - Every answer has a time limit here, too. The server's limits end what the server does; they do not help if the network
 *   in between is gone.
 */
import { FenceError } from "../errors.js";
import {
  endsConnection,
  type PostgresClient,
  type PostgresPool,
  type PostgresResult,
  sqlStateOf,
} from "./postgres-driver.js";

/** Statements of one transaction that wait for those before them. */
const WAITING_MAX = 1_000;
/**
 * What a late answer still gets when its time is over: after a process has stood still, timers come first and then the
 * answers that have long been there.
 */
const STALLED_MS = 50;
/** For the end of a transaction that has failed; after it the connection is given up. */
const ROLLBACK_MS = 2_000;

export class Connection<Client extends PostgresClient> {
  /** What has ended it, or `undefined`. */
  #broken: { readonly error: unknown } | undefined;
  #inTransaction = false;
  #last: Promise<unknown> = Promise.resolve();
  #waiting = 0;
  readonly #watch = new Watch();

  private constructor(readonly client: Client) {
    client.on("error", this.#onError);
  }

  readonly #onError = (error: unknown): void => {
    this.#broken ??= { error };
  };

  /** Rejects UNREACHABLE when the pool has no connection within this time, or cannot get one. */
  static async open<Client extends PostgresClient>(pool: PostgresPool<Client>, limitMs: number) {
    const connecting = pool.connect();
    const watch = new Watch();
    try {
      return new Connection(await watch.over(connecting, limitMs, "no connection"));
    } catch (error) {
      connecting.then(
        (client) => client.release(), // it has come too late for us
        () => undefined,
      );
      if (FenceError.is(error)) throw error;
      throw new FenceError("UNREACHABLE", "there is no connection to PostgreSQL", { cause: error });
    } finally {
      watch.end();
    }
  }

  /** Whether it can be used no more. */
  get broken(): boolean {
    return this.#broken !== undefined;
  }

  /** Runs jobs one after the other. A job may send what it likes. Rejects LIMIT when too many wait. */
  inTurn<T>(job: () => Promise<T>): Promise<T> {
    if (this.#waiting >= WAITING_MAX) {
      const message = `${WAITING_MAX} statements of this transaction are waiting already`;
      return Promise.reject(new FenceError("LIMIT", message));
    }
    const turn = this.#waiting++ === 0 ? job() : this.#last.then(job);
    const done = () => {
      this.#waiting--;
    };
    this.#last = turn.then(done, done);
    return turn;
  }

  /**
   * Sends one statement, or several without values; one call after the other. Rejects with the driver's error, or
   * UNREACHABLE.
   */
  async ask(text: string, values: unknown[] | undefined, limitMs: number): Promise<PostgresResult> {
    if (this.#broken) throw this.#broken.error;
    try {
      const answer = values === undefined ? this.client.query(text) : this.client.query(text, values);
      return await this.#watch.over(answer, limitMs, "no answer");
    } catch (error) {
      const ended = FenceError.is(error) || (sqlStateOf(error) !== undefined && endsConnection(error));
      if (ended) this.#broken ??= { error };
      throw this.#broken?.error ?? error;
    }
  }

  /** From here on there is a transaction that must be ended before the connection goes back. */
  begun(): void {
    this.#inTransaction = true;
  }

  /** It has been ended. */
  ended(): void {
    this.#inTransaction = false;
  }

  /** Ends what there is of the transaction without a trace. Never rejects: if it fails, the connection is given up. */
  async rollback(): Promise<void> {
    if (!this.#inTransaction || this.#broken) return;
    try {
      await this.inTurn(() => this.ask("rollback", undefined, ROLLBACK_MS));
      this.#inTransaction = false;
    } catch (error) {
      this.#broken ??= { error };
    }
  }

  /** Back into the pool, or out of it: never with a transaction that is still open. */
  release(): void {
    this.#watch.end();
    if (this.#broken || this.#inTransaction) {
      // The listener stays: what is left of a broken connection may fail once more.
      this.client.release(this.#broken?.error instanceof Error ? this.#broken.error : true);
      return;
    }
    this.client.removeListener("error", this.#onError);
    this.client.release();
  }
}

/** Time limits for one answer after the other. Most come at once, so the timer is left running from one to the next. */
class Watch {
  #timer: NodeJS.Timeout | undefined;
  #timerMs = 0;
  #dueMs = 0;
  #late: (() => void) | undefined;

  /** Resolves and rejects as the answer does; rejects UNREACHABLE when it takes longer. */
  over<T>(answer: Promise<T>, limitMs: number, what: string): Promise<T> {
    return new Promise((resolve, reject) => {
      const late = () => reject(new FenceError("UNREACHABLE", `${what} from PostgreSQL within ${limitMs} ms`));
      this.#late = late;
      this.#dueMs = performance.now() + limitMs + STALLED_MS;
      if (this.#timer === undefined || this.#timerMs > this.#dueMs - STALLED_MS) this.#wait(limitMs);
      answer.then(
        (value) => {
          this.#late = undefined;
          resolve(value);
        },
        (error: unknown) => {
          this.#late = undefined;
          reject(error);
        },
      );
    });
  }

  #wait(ms: number): void {
    clearTimeout(this.#timer);
    this.#timerMs = performance.now() + ms;
    this.#timer = setTimeout(this.#look, ms);
  }

  /** The last look comes `STALLED_MS` after the one before, so that the answers which are there are read in between. */
  readonly #look = (): void => {
    this.#timer = undefined;
    if (this.#late === undefined) return;
    const leftMs = this.#dueMs - performance.now();
    if (leftMs > STALLED_MS) this.#wait(leftMs - STALLED_MS);
    else this.#timer = setTimeout(() => this.#late?.(), STALLED_MS);
  };

  end(): void {
    clearTimeout(this.#timer);
    this.#late = undefined;
  }
}

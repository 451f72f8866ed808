/**
 * A connection out of the user's pool, for as long as one transaction lasts.
 *
 * - The server may end it at any time: a time limit has run out while its process stood still. The driver says so by an
 *   `error` event, at a time when nobody may be asking.
 * - One statement at a time, in the order of the calls.
 * - Every answer has a time limit here, too. The server's limits end what the server does; they do not help if the network
 *   in between is gone.
 */
import { FenceError } from "../errors.js";
import { endsConnection, errnoOf, type MysqlAnswer, type MysqlConnection, type MysqlPool } from "./mysql-driver.js";

/** Statements of one transaction that wait for those before them. */
const WAITING_MAX = 1_000;
/**
 * What a late answer still gets when its time is over: after a process has stood still, timers come first and then the
 * answers that have long been there.
 */
const STALLED_MS = 50;
/** For the end of a transaction that has failed; after it the connection is given up. */
const ROLLBACK_MS = 2_000;

export class Connection<Client extends MysqlConnection> {
  /** What has ended it, or `undefined`. */
  #broken: { readonly error: unknown } | undefined;
  /** What ends the transaction that is open, or `undefined`. */
  #undo: string | undefined;
  #last: Promise<unknown> = Promise.resolve();
  #waiting = 0;

  private constructor(readonly client: Client) {
    client.on("error", this.#onEnd);
    client.on("end", this.#onEnd);
  }

  readonly #onEnd = (error?: unknown): void => {
    this.#broken ??= { error: error ?? new FenceError("UNREACHABLE", "the connection to MySQL was closed") };
  };

  /** Rejects UNREACHABLE when the pool has no connection within this time, or cannot get one. */
  static async open<Client extends MysqlConnection>(pool: MysqlPool<Client>, limitMs: number) {
    const connecting = pool.getConnection();
    try {
      return new Connection(await inTime(connecting, limitMs, "no connection"));
    } catch (error) {
      connecting.then(
        (client) => client.release(), // it has come too late for us
        () => undefined,
      );
      if (FenceError.is(error)) throw error;
      throw new FenceError("UNREACHABLE", "there is no connection to MySQL", { cause: error });
    }
  }

  /** Whether it can be used no more. */
  get broken(): boolean {
    return this.#broken !== undefined;
  }

  /** Runs jobs one after the other. A job may send what it likes. Rejects LIMIT when too many wait. */
  async inTurn<T>(job: () => Promise<T>): Promise<T> {
    if (this.#waiting >= WAITING_MAX) {
      throw new FenceError("LIMIT", `${WAITING_MAX} statements of this transaction are waiting already`);
    }
    this.#waiting++;
    const turn = this.#last.then(job);
    this.#last = turn.catch(() => undefined);
    try {
      return await turn;
    } finally {
      this.#waiting--;
    }
  }

  /** Sends one statement. Rejects with the driver's error, or UNREACHABLE. */
  async ask(text: string, values: unknown[] | undefined, limitMs: number): Promise<MysqlAnswer> {
    if (this.#broken) throw this.#broken.error;
    const answer = values === undefined ? this.client.query(text) : this.client.query(text, values);
    try {
      return await inTime(answer, limitMs, "no answer");
    } catch (error) {
      if (FenceError.is(error)) this.#broken = { error };
      else if (endsConnection(error) && errnoOf(error) !== undefined) this.#broken = { error };
      throw this.#broken?.error ?? error;
    }
  }

  /** From here on there is something that this statement must end before the connection goes back. */
  begun(undo: string): void {
    this.#undo = undo;
  }

  /** It has been ended. */
  ended(): void {
    this.#undo = undefined;
  }

  /** Ends what there is of the transaction without a trace. Never rejects: if it fails, the connection is given up. */
  async rollback(): Promise<void> {
    const undo = this.#undo;
    if (undo === undefined || this.#broken) return;
    try {
      await this.inTurn(() => this.ask(undo, undefined, ROLLBACK_MS));
      this.#undo = undefined;
    } catch (error) {
      this.#broken ??= { error };
    }
  }

  /** Back into the pool, or out of it: never with a transaction that is still open, or with its limits. */
  release(): void {
    if (this.#broken || this.#undo !== undefined) {
      this.client.destroy(); // the listeners stay: what is left of a broken connection may fail once more
      return;
    }
    this.client.removeListener("error", this.#onEnd);
    this.client.removeListener("end", this.#onEnd);
    this.client.release();
  }
}

/** Resolves and rejects as the answer does; rejects UNREACHABLE when it takes longer. */
function inTime<T>(answer: Promise<T>, limitMs: number, what: string): Promise<T> {
  return new Promise((resolve, reject) => {
    const late = () => reject(new FenceError("UNREACHABLE", `${what} from MySQL within ${limitMs} ms`));
    let timer = setTimeout(() => {
      timer = setTimeout(late, STALLED_MS);
    }, limitMs);
    const settled = <V>(settle: (value: V) => void) => {
      return (value: V) => {
        clearTimeout(timer);
        settle(value);
      };
    };
    answer.then(settled(resolve), settled(reject));
  });
}

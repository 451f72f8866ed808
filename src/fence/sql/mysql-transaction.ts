/**
 * A fenced transaction: a transaction like all others, with a check as its last statement.
 *
 *     limits, raise the floor, commit, begin     one call (the raise once for each hold: see RaisedFloors)
 *     ... the caller's statements ...
 *     check the floor, commit                    one call
 *
 * So it takes as many round trips as begin, statements, commit without a fence; with several locks, one
 * more for each further check, and for each further raise.
 *
 * **The raise is committed before the begin**, as in postgres-transaction.ts. Here it matters to everybody, since
 * repeatable read is the default: the snapshot must come after every commit of a lower token.
 *
 * **What a failed statement leaves is not always a transaction.** After a deadlock the server has rolled it back, and takes
 * the next statement as one of its own:
 *
 *     update a; update b: deadlock, all rolled back
 *     (the caller catches that, and goes on)
 *     update c                                   committed at once, without a check
 *
 * So nothing more is sent after such an error, and the transaction ends with it. For the same reason statements that end
 * a transaction by the way (`create table` and all its like) are refused. A procedure may do it unseen; the server's answer
 * says whether the transaction is still open, and if it is not, nothing more is sent.
 */
import { FenceError, invalid, show, stale } from "../errors.js";
import type { RaisedFloors } from "../raised.js";
import { readToken } from "../token.js";
import { Connection } from "./mysql-connection.js";
import {
  endsConnection,
  firstValues,
  isOutside,
  type MysqlAnswer,
  type MysqlConnection,
  type MysqlDb,
  type MysqlPool,
} from "./mysql-driver.js";
import { type Limits, lastLimitsOf, limitsOf, spanMs } from "./mysql-limits.js";
import {
  explain,
  explainOwn,
  explainStale,
  explainStart,
  isConflict,
  isFatal,
  isInterrupted,
  outcomeUnknown,
} from "./mysql-refusals.js";
import { bytesOf, type MysqlTable, nameOf } from "./mysql-schema.js";
import { type Held, remainingMs } from "./postgres-limits.js";

export type MysqlIsolation = "read committed" | "repeatable read" | "serializable";

/** An open, fenced transaction. It is closed when the function that got it has ended. */
export interface MysqlTx<Client extends MysqlConnection = MysqlConnection> extends MysqlDb {
  /**
   * Runs a statement, after a look at the hold; resolves as the driver's own does. Rejects LOST when the hold is over
   * (nothing was sent, or the server has ended the transaction), INVALID for statements that would end the transaction, and
   * with the driver's errors.
   */
  query<Result = Record<string, unknown>[]>(text: string, values?: readonly unknown[]): Promise<MysqlAnswer<Result>>;
  /**
   * The connection, for query builders and for what else the driver can do. What it sends is guarded by the check at the
   * end, without the looks at the hold before that. Do not end the transaction by it, and send nothing more after an error.
   */
  readonly connection: Client;
}

/** What a fence has for its transactions. */
export interface Place<Client extends MysqlConnection> {
  readonly pool: MysqlPool<Client>;
  readonly at: MysqlTable;
  readonly raised: RaisedFloors;
  /** Stands for what remains of a hold of which nobody has said that. */
  readonly limitMs: number;
}

/** How often a begin is tried that has met another one in a deadlock: nothing of the caller's was sent before it. */
const ATTEMPTS = 5;
/** For the looks after something went wrong. */
const LOOK_MS = 2_000;
const COMMENTS = /^(?:\s+|\/\*(?!M?!)[\s\S]*?\*\/|--\s[^\n]*(?:\n|$)|#[^\n]*(?:\n|$))+/;
/** What ends a transaction, or begins another: by its name, or by the way. Savepoints and temporary tables are welcome. */
const ENDS_TRANSACTION = new RegExp(
  [
    "^(?:(?:begin|start|stop|commit|xa|alter|rename|truncate|lock|unlock|grant|revoke|flush|analyze|optimize|repair",
    "install|uninstall|reset|change|cache|purge)\\b",
    "rollback\\b(?!\\s+(?:work\\s+)?to\\b)",
    "create\\b(?!\\s+(?:or\\s+replace\\s+)?temporary\\b)",
    "drop\\b(?!\\s+temporary\\b)",
    "(?:check|load)\\s+(?:table|index)\\b",
    "set\\s+password\\b",
    "set\\b[^'\"]*\\bautocommit\\b)",
  ].join("|"),
  "i",
);

const call = (at: MysqlTable, procedure: string, ...parameters: readonly (string | number | boolean)[]): string =>
  `call ${nameOf(at, procedure)}(${parameters.join(", ")})`;

const limitsText = (at: MysqlTable, { waitS, statementMs }: Limits): string => call(at, "_limits", waitS, statementMs);

function beginText(at: MysqlTable, { waitS, statementMs }: Limits, isolation?: MysqlIsolation, raise?: Held): string {
  const raised = raise ? [bytesOf(raise.resource), raise.token] : ["null", "null"];
  return call(at, "_begin", isolation ? `'${isolation}'` : "null", waitS, statementMs, ...raised);
}

const checkText = (at: MysqlTable, procedure: "_check" | "_commit", { resource, token, raises }: Held): string =>
  call(at, procedure, bytesOf(resource), token, raises);

/** Runs what begins again when it has met another one in a deadlock. */
async function begun<T>(connection: Connection<MysqlConnection>, at: MysqlTable, job: () => Promise<T>): Promise<T> {
  for (let attempt = 1; ; attempt++) {
    try {
      connection.begun(call(at, "_end"));
      return await job();
    } catch (error) {
      await connection.rollback();
      if (!isConflict(error) || connection.broken || attempt >= ATTEMPTS) throw error;
    }
  }
}

/** Raises floors in a transaction of its own. Rejects as `Fence.raise` does. */
export async function raiseFloors<Client extends MysqlConnection>(place: Place<Client>, held: readonly Held[]) {
  const { at, limitMs } = place;
  limitsOf(held, limitMs);
  const connection = await Connection.open(place.pool, remainingMs(held, limitMs));
  try {
    await begun(connection, at, async () => {
      const limits = limitsOf(held, limitMs); // the wait for a connection may have taken long
      await connection.ask(beginText(at, limits, "read committed"), undefined, spanMs(limits));
      await checks(connection, at, held, spanMs(limits));
    }).catch((error: unknown) => {
      throw explainStart(error, held, at);
    });
    connection.ended();
    remember(place, held);
  } finally {
    connection.release();
  }
}

/** The checks, which raise what must be raised, and the commit with the last of them. */
async function checks(
  connection: Connection<MysqlConnection>,
  at: MysqlTable,
  held: readonly Held[],
  limitMs: number,
): Promise<void> {
  for (const [i, one] of held.entries()) {
    const text = checkText(at, i === held.length - 1 ? "_commit" : "_check", one);
    await connection.ask(text, undefined, limitMs).catch((error: unknown) => {
      throw explainStale(error, one);
    });
  }
}

function remember({ raised }: { readonly raised: RaisedFloors }, held: readonly Held[]): void {
  for (const { resource, raises, token } of held) if (raises) raised.add(resource, token);
}

/** Runs a function in a fenced transaction. `held` are in the order in which their floors are locked. */
export async function transact<Client extends MysqlConnection, T>(
  place: Place<Client>,
  held: readonly Held[],
  fn: (tx: MysqlTx<Client>) => T | Promise<T>,
  isolation: MysqlIsolation | undefined,
): Promise<T> {
  limitsOf(held, place.limitMs);
  const connection = await Connection.open(place.pool, remainingMs(held, place.limitMs));
  try {
    const limits = await begin(place, connection, held, isolation);
    const tx = new OpenTx(place, connection, held, limits);
    let result: T;
    try {
      result = await fn(tx);
    } catch (error) {
      throw await undone(place, connection, held, error);
    } finally {
      tx.close();
    }
    await finish(place, connection, held, tx);
    return result;
  } finally {
    connection.release();
  }
}

/** The raises that are needed, each committed, and the begin with the last of them. Resolves with the limits. */
async function begin<Client extends MysqlConnection>(
  place: Place<Client>,
  connection: Connection<Client>,
  held: readonly Held[],
  isolation: MysqlIsolation | undefined,
): Promise<Limits> {
  const { at, raised, limitMs } = place;
  const toRaise = held.filter(({ resource, raises, token }) => raises && !raised.has(resource, token));
  const begins = toRaise.length === 0 ? [undefined] : toRaise;
  try {
    return await begun(connection, at, async () => {
      const limits = limitsOf(held, limitMs);
      for (const raise of begins) {
        const text = beginText(at, limits, isolation, raise);
        await connection.ask(text, undefined, spanMs(limits)).catch((error: unknown) => {
          throw raise ? explainStale(error, raise) : error;
        });
      }
      remember(place, toRaise);
      return limits;
    });
  } catch (error) {
    throw explainStart(error, held, at);
  }
}

/** The look at the holds, the check and the commit. */
async function finish<Client extends MysqlConnection>(
  place: Place<Client>,
  connection: Connection<Client>,
  held: readonly Held[],
  tx: OpenTx<Client>,
): Promise<void> {
  let sent = false;
  try {
    await connection.inTurn(async () => {
      await tx.look("last");
      sent = !connection.broken;
      await checks(connection, place.at, held, tx.answerMs);
      connection.ended();
    });
  } catch (error) {
    if (sent && endsConnection(error) && !FenceError.is(error, "STALE_TOKEN")) throw outcomeUnknown(held, error);
    if (sent && isInterrupted(error) && (await wasCommitting(connection))) throw outcomeUnknown(held, error);
    const refused = await undone(place, connection, held, error);
    throw sent ? explainOwn(explain(refused, held), place.at) : explain(refused, held);
  }
}

/** Whether a statement that was interrupted was at the commit, or behind it; the procedure leaves a mark there. */
async function wasCommitting(connection: Connection<MysqlConnection>): Promise<boolean> {
  try {
    const [at] = firstValues(await connection.ask("select @leasehold_at as place", undefined, LOOK_MS));
    return at !== null;
  } catch {
    return true;
  }
}

/** Rolls back. Resolves with what is to be thrown: a conflict that a higher token has caused is a stale token. */
async function undone<Client extends MysqlConnection>(
  { at }: Place<Client>,
  connection: Connection<Client>,
  held: readonly Held[],
  error: unknown,
): Promise<unknown> {
  await connection.rollback();
  if (!isConflict(error)) return error;
  try {
    for (const { resource, token } of held) {
      const text = `select cast(token as char) as floor from ${nameOf(at)} where resource = ${bytesOf(resource)}`;
      const [value] = firstValues(await connection.ask(text, undefined, LOOK_MS));
      const floor = readToken(value ?? 0);
      if (floor > token) return stale(resource, token, floor, error);
    }
  } catch {
    // Then it stays what it is.
  }
  return error;
}

class OpenTx<Client extends MysqlConnection> implements MysqlTx<Client> {
  #closed = false;
  #limits: Limits;
  /** What the transaction has died of, or `undefined`. */
  #died: { readonly error: unknown } | undefined;

  constructor(
    private readonly place: Place<Client>,
    private readonly open: Connection<Client>,
    private readonly held: readonly Held[],
    limits: Limits,
  ) {
    this.#limits = limits;
  }

  get connection(): Client {
    return this.open.client;
  }

  /** How long the answer to what is sent now can take. */
  get answerMs(): number {
    return spanMs(this.#limits);
  }

  async query<Result = Record<string, unknown>[]>(
    text: string,
    values?: readonly unknown[],
  ): Promise<MysqlAnswer<Result>> {
    if (typeof text !== "string") throw invalid(`a statement must be text, not ${show(text)}`);
    if (ENDS_TRANSACTION.test(text.replace(COMMENTS, ""))) {
      throw invalid(`the fence begins and ends the transaction; it must not be done by ${show(text)}`);
    }
    if (this.#closed) throw invalid("the transaction is over: nothing may be begun after the end of its function");
    return this.open.inTurn(async () => {
      await this.look();
      const answer = await this.#ask(text, values && [...values]);
      if (!isOutside(answer)) return answer as MysqlAnswer<Result>;
      const error = invalid(`the transaction was ended by ${show(text)}: what it had written is not fenced`);
      this.#died = { error };
      throw error;
    });
  }

  /**
   * Looks at the holds before something is sent, and shortens the limits if they do not fit into what remains. Before the
   * last statement no time for a pause need remain.
   */
  async look(which: "last" | "not the last" = "not the last"): Promise<void> {
    const restMs = remainingMs(this.held, this.place.limitMs); // throws LOST
    if (this.#died) throw this.#died.error;
    if (restMs >= spanMs(this.#limits)) return;
    const limits = which === "last" ? lastLimitsOf : limitsOf;
    this.#limits = limits(this.held, this.place.limitMs);
    await this.#ask(limitsText(this.place.at, this.#limits));
  }

  close(): void {
    this.#closed = true;
  }

  async #ask(text: string, values?: unknown[]): Promise<MysqlAnswer> {
    try {
      return await this.open.ask(text, values, this.answerMs);
    } catch (error) {
      const explained = explain(error, this.held);
      if (isFatal(error)) this.#died = { error: explained };
      throw explained;
    }
  }
}

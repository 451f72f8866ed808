/**
 * A fenced transaction: a transaction like all others, with a check as its last statement.
 *
 *     raise the floor, commit     (once for each hold: see RaisedFloors)
 *     begin, set time limits      with the raise, one round trip
 *     ... the caller's statements ...
 *     check the floor, commit     one round trip
 *
 * So it takes as many round trips as begin, statements, commit without a fence.
 *
 * **The raise has a transaction of its own, before the begin.** In one with the rest, under repeatable read:
 *
 *     token 33: check, floor 33, share lock
 *                                               token 34: begin; its snapshot is taken
 *                                               token 34: raise, waits for the lock of 33
 *     token 33: commit
 *                                               token 34: floor 34; reads its snapshot, which is from before 33's commit,
 *                                                         and overwrites what 33 has written
 *
 * When the raise is committed first, the snapshot comes after every commit of a lower token. It follows, too, that a
 * serialization failure is never owed to a lower token: a higher one has been there, or somebody without a lock.
 */
import { invalid, show, stale } from "../errors.js";
import type { RaisedFloors } from "../raised.js";
import { readToken } from "../token.js";
import { Connection } from "./postgres-connection.js";
import {
  endsConnection,
  type PostgresClient,
  type PostgresDb,
  type PostgresPool,
  type PostgresResult,
  SQLSTATE,
  sqlStateOf,
} from "./postgres-driver.js";
import { type Held, type Limits, limitsWithin, remainingMs, spanMs } from "./postgres-limits.js";
import { denied, explain, explainStart, outcomeUnknown } from "./postgres-refusals.js";
import { literal, nameOf, type PostgresTable } from "./postgres-schema.js";
import { askText, type Sessions } from "./postgres-session.js";

export type PostgresIsolation = "read committed" | "repeatable read" | "serializable";

/** An open, fenced transaction. It is closed when the function that got it has ended. */
export interface PostgresTx<Client extends PostgresClient = PostgresClient> extends PostgresDb {
  /**
   * Runs a statement, after a look at the hold. Rejects LOST when it is over (nothing was sent, or the server has ended the
   * transaction), INVALID for statements that would end the transaction, and with the driver's errors.
   */
  query<Row = Record<string, unknown>>(text: string, values?: readonly unknown[]): Promise<PostgresResult<Row>>;
  /**
   * The connection, for query builders and for what else the driver can do. What it sends is guarded by the check at the
   * end, without the looks at the hold before that. Do not end the transaction by it.
   */
  readonly client: Client;
}

/** What a fence has for its transactions. */
export interface Place<Client extends PostgresClient> {
  readonly pool: PostgresPool<Client>;
  readonly at: PostgresTable;
  readonly raised: RaisedFloors;
  readonly sessions: Sessions;
  /** Stands for what remains of a hold of which nobody has said that. */
  readonly limitMs: number;
}

/** For the look after a conflict. */
const LOOK_MS = 2_000;
/** What ends a transaction, or begins another. Savepoints are welcome. */
const ENDS_TRANSACTION =
  /^\s*(?:(?:begin|start|commit|end|abort)\b|prepare\s+transaction\b|rollback\b(?!\s+(?:(?:work|transaction)\s+)?to\b))/i;
const BACK_TO_SAVEPOINT = /^\s*rollback\b/i;

/** Raises the floors that this process does not know as raised, and checks shared holds if they are among them. */
function raiseText(at: PostgresTable, held: readonly Held[]): string {
  const calls = held.map(({ resource, token, raises }) =>
    raises
      ? `select ${nameOf(at, "_raise")}(${literal(resource)}, ${token})`
      : `call ${nameOf(at, "_check")}(${literal(resource)}, ${token}, false)`,
  );
  return calls.join("; ");
}

const checkText = (at: PostgresTable, held: readonly Held[]): string =>
  held
    .map(({ resource, token, raises }) => `call ${nameOf(at, "_check")}(${literal(resource)}, ${token}, ${raises})`)
    .join("; ");

/** Raises floors in a transaction of its own. Rejects as `Fence.raise` does. */
export async function raiseFloors<Client extends PostgresClient>(place: Place<Client>, held: readonly Held[]) {
  const { pool, at, sessions, limitMs } = place;
  const connection = await Connection.open(pool, remainingMs(held, limitMs));
  try {
    const limits = limitsWithin(remainingMs(held, limitMs)); // the wait for a connection may have taken long
    // Several statements in one message are one transaction, and an error ends it: there is nothing to roll back.
    const set = sessions.limitsText(connection.client, at, limits);
    const text = `set transaction isolation level read committed; ${set}; ${raiseText(at, held)}`;
    const answer = await connection.ask(text, undefined, spanMs(limits)).catch((error: unknown) => {
      throw explainStart(error, held, at);
    });
    sessions.learn(connection.client, answer);
    remember(place, held);
  } finally {
    connection.release();
  }
}

function remember({ raised }: { readonly raised: RaisedFloors }, held: readonly Held[]): void {
  for (const { resource, raises, token } of held) if (raises) raised.add(resource, token);
}

/** Runs a function in a fenced transaction. `held` are in the order in which their floors are locked. */
export async function transact<Client extends PostgresClient, T>(
  place: Place<Client>,
  held: readonly Held[],
  fn: (tx: PostgresTx<Client>) => T | Promise<T>,
  isolation: PostgresIsolation | undefined,
): Promise<T> {
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

/** One round trip: the raise, if it is needed, and the begin with its limits. Resolves with those. */
async function begin<Client extends PostgresClient>(
  place: Place<Client>,
  connection: Connection<Client>,
  held: readonly Held[],
  isolation: PostgresIsolation | undefined,
): Promise<Limits> {
  const { at, raised, sessions } = place;
  const limits = limitsWithin(remainingMs(held, place.limitMs));
  const toRaise = held.filter(({ resource, raises, token }) => raises && !raised.has(resource, token));
  const set = sessions.limitsText(connection.client, at, limits);
  const begun = `begin${isolation === undefined ? "" : ` isolation level ${isolation}`}; ${set}`;
  const raise = `begin isolation level read committed; ${set}; ${raiseText(at, toRaise)}; commit; `;
  try {
    connection.begun();
    const answer = await connection.ask(toRaise.length === 0 ? begun : raise + begun, undefined, spanMs(limits));
    sessions.learn(connection.client, answer);
  } catch (error) {
    await connection.rollback();
    throw explainStart(error, held, at);
  }
  remember(place, toRaise);
  return limits;
}

/** The look at the holds, the check and the commit. */
async function finish<Client extends PostgresClient>(
  place: Place<Client>,
  connection: Connection<Client>,
  held: readonly Held[],
  tx: OpenTx<Client>,
): Promise<void> {
  let sent = false;
  try {
    await connection.inTurn(async () => {
      const shortened = tx.look();
      if (shortened) await shortened;
      sent = !connection.broken;
      await connection.ask(`${checkText(place.at, held)}; commit`, undefined, tx.answerMs);
      connection.ended();
    });
  } catch (error) {
    const state = sqlStateOf(error);
    // Whoever has run out of the limit for pauses was ended before this was read.
    if (sent && endsConnection(error) && state !== SQLSTATE.idleInTransaction) throw outcomeUnknown(held, error);
    const refused = await undone(place, connection, held, error);
    throw sent && state === SQLSTATE.denied ? denied(error, place.at) : explain(refused, held);
  }
}

/** Rolls back. Resolves with what is to be thrown: a conflict that a higher token has caused is a stale token. */
async function undone<Client extends PostgresClient>(
  { at }: Place<Client>,
  connection: Connection<Client>,
  held: readonly Held[],
  error: unknown,
): Promise<unknown> {
  await connection.rollback();
  const state = sqlStateOf(error);
  if (state !== SQLSTATE.serialization && state !== SQLSTATE.deadlock) return error;
  try {
    for (const { resource, token } of held) {
      const text = `select token::text as floor from ${nameOf(at)} where resource = $1`;
      const { rows } = await connection.ask(text, [resource], LOOK_MS);
      const floor = readToken(rows[0]?.floor ?? 0);
      if (floor > token) return stale(resource, token, floor, error);
    }
  } catch {
    // Then it stays what it is.
  }
  return error;
}

class OpenTx<Client extends PostgresClient> implements PostgresTx<Client> {
  #closed = false;
  #limits: Limits;
  /** Whether the server may have other limits than these: after the return to a savepoint. */
  #uncertain = false;

  constructor(
    private readonly place: Place<Client>,
    private readonly connection: Connection<Client>,
    private readonly held: readonly Held[],
    limits: Limits,
  ) {
    this.#limits = limits;
  }

  get client(): Client {
    return this.connection.client;
  }

  /** How long the answer to what is sent now can take. */
  get answerMs(): number {
    return spanMs(this.#limits);
  }

  async query<Row = Record<string, unknown>>(text: string, values?: readonly unknown[]): Promise<PostgresResult<Row>> {
    if (typeof text !== "string") throw invalid(`a statement must be text, not ${show(text)}`);
    if (ENDS_TRANSACTION.test(text)) {
      throw invalid(`the fence begins and ends the transaction; it must not be done by ${show(text)}`);
    }
    if (this.#closed) throw invalid("the transaction is over: nothing may be begun after the end of its function");
    return this.connection.inTurn(async () => {
      const shortened = this.look();
      if (shortened) await shortened;
      try {
        if (BACK_TO_SAVEPOINT.test(text)) this.#uncertain = true;
        const result = await this.connection.ask(text, values && [...values], this.answerMs);
        return result as PostgresResult<Row>;
      } catch (error) {
        throw explain(error, this.held);
      }
    });
  }

  /**
   * Looks at the holds before something is sent, and shortens the limits if they do not fit into what remains: that is
   * what the promise is for, and most often there is none.
   */
  look(): Promise<void> | undefined {
    const restMs = remainingMs(this.held, this.place.limitMs);
    if (restMs < spanMs(this.#limits)) this.#limits = limitsWithin(restMs);
    else if (!this.#uncertain) return undefined;
    this.#uncertain = false;
    return this.#shorten();
  }

  async #shorten(): Promise<void> {
    try {
      await this.connection.ask(askText(this.place.at, this.#limits), undefined, this.answerMs);
    } catch (error) {
      throw explain(error, this.held);
    }
  }

  close(): void {
    this.#closed = true;
  }
}

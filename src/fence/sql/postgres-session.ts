/**
 * How a transaction gets its limits on a connection.
 *
 * A session may have limits of its own, set by an administrator; those that are stricter must stay. To look at them takes
 * a function in the database, which costs as much as everything else that the fence does. Most sessions have none. So the
 * function is asked first, says whether it found any, and for a minute afterwards the limits are simply set. (Within that
 * minute a session that is given stricter ones keeps those of the fence, which are within its hold all the same.)
 */
import type { PostgresClient, PostgresResult } from "./postgres-driver.js";
import type { Limits } from "./postgres-limits.js";
import { nameOf, type PostgresTable } from "./postgres-schema.js";

/** For how long it is known that a session has no limits of its own. */
const KNOWN_MS = 60_000;
/** A lost packet is no pause; as in the function. */
const NETWORK_MS_MIN = 1_000;

export class Sessions {
  /** When a connection's session was found to have no limits of its own. */
  readonly #freeSinceMs = new WeakMap<PostgresClient, number>();

  /** The statements that limit what comes after them in a transaction. */
  limitsText(client: PostgresClient, at: PostgresTable, limits: Limits): string {
    const sinceMs = this.#freeSinceMs.get(client);
    const known = sinceMs !== undefined && performance.now() - sinceMs < KNOWN_MS;
    return known ? setText(limits) : askText(at, limits);
  }

  /** Takes what `limitsText` was answered with; other answers may be among them. */
  learn(client: PostgresClient, answer: PostgresResult | readonly PostgresResult[]): void {
    for (const { rows } of isSeveral(answer) ? answer : [answer]) {
      const free = rows[0]?.free;
      if (typeof free !== "boolean") continue;
      if (free) this.#freeSinceMs.set(client, performance.now());
      else this.#freeSinceMs.delete(client);
    }
  }
}

const isSeveral = (answer: PostgresResult | readonly PostgresResult[]): answer is readonly PostgresResult[] =>
  Array.isArray(answer);

/** Leaves stricter limits as they are, and tells whether there were none. */
export const askText = (at: PostgresTable, { waitMs, statementMs }: Limits): string =>
  `select ${nameOf(at, "_limits")}(${waitMs}, ${statementMs}) as free`;

const setText = ({ waitMs, statementMs }: Limits): string =>
  `set local lock_timeout = ${waitMs}; set local idle_in_transaction_session_timeout = ${waitMs}; ` +
  `set local statement_timeout = ${statementMs}; ` +
  `set local tcp_user_timeout = ${Math.max(waitMs, NETWORK_MS_MIN)}`;

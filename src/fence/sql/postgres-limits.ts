/**
 * How long a fenced transaction may take.
 *
 * A process that is stopped inside leaves a transaction open, with its locks. The server must end it no later than the hold
 * ends, or the successor has a lock and cannot work. The server does not know of the hold; it knows a limit for a statement,
 * and one for the pause after it. What must fit into the rest of the hold is their sum, from the moment at which a
 * statement is sent:
 *
 *     remaining 10 s: 5 s for a statement; 2.5 s for a pause of the client, and for a wait for a lock
 *     remaining  7 s, no renewal came: before the next statement 3.5 s and 1.75 s are set
 *     the process is stopped while that statement runs
 *     remaining  1.75 s, at the latest: the server ends the transaction
 *
 * The last quarter is for the messages in between. Renewals only make the hold longer, so most transactions set their limits
 * once, together with the begin.
 *
 * A client may also stop while the server sends it a result that is larger than the buffers of the connection. For the server
 * that is no pause, and it cannot end the statement. The limit for data that nobody takes (`tcp_user_timeout`, at least one
 * second) ends the connection then. Servers on other systems than Linux do not have it, nor do connections by unix sockets.
 */
import { FenceError, show } from "../errors.js";
import type { Hold } from "../hold.js";

/** A hold, with what it said of itself at the beginning: a lock that is lost tells its token no more. */
export interface Held {
  readonly hold: Hold;
  readonly resource: string;
  readonly token: number;
  readonly raises: boolean;
}

/** Throws LOST when the hold is over. */
export const heldOf = (hold: Hold): Held => {
  const { resource, token, raises } = hold;
  return { hold, resource, token, raises };
};

/** In milliseconds. */
export interface Limits {
  /** For a pause of the client, and for a wait for a lock. */
  readonly waitMs: number;
  readonly statementMs: number;
}

/** With less than this it is too late to begin anything. */
const REMAINING_MS_MIN = 50;
/** The longest limit that the server takes. */
const LIMIT_MS_MAX = 2 ** 31 - 1;

/**
 * What is left of the shortest hold, in milliseconds. `unknownMs` stands for holds of which nobody has said how long they
 * last. Throws LOST when one of them is over, or as good as over.
 */
export function remainingMs(held: readonly Held[], unknownMs: number): number {
  let leastMs = Number.POSITIVE_INFINITY;
  for (const { hold, resource } of held) {
    const { token } = hold; // throws LOST
    const leftMs = hold.remainingMs();
    if (leftMs < REMAINING_MS_MIN) {
      const message = `only ${Math.floor(leftMs)} ms are left of the hold of ${show(resource)} with the token ${token}`;
      throw new FenceError("LOST", message, { resource, token });
    }
    leastMs = Math.min(leastMs, leftMs);
  }
  return Math.min(leastMs === Number.POSITIVE_INFINITY ? unknownMs : leastMs, LIMIT_MS_MAX);
}

export const limitsWithin = (restMs: number): Limits => ({
  waitMs: Math.floor(restMs / 4),
  statementMs: Math.floor(restMs / 2),
});

/** The longest time until an answer comes, or until a stopped client's transaction is ended. */
export const spanMs = ({ waitMs, statementMs }: Limits): number => waitMs + statementMs;

export const isOver = (held: readonly Held[]): boolean => held.some(({ hold }) => hold.remainingMs() <= 0);

/** What the causal sessions need to know of a storage system with a primary and replicas. */

/**
 * How a server stands to a position: it has applied it; it will, if it goes on as it does; or the two are not of one
 * history (another cluster, or before and after a failover), and no comparison says anything.
 */
export type Cover = "applied" | "behind" | "other";

/** A connection that is lent. */
export interface Lent<D> {
  readonly db: D;
  /** Gives it back; `broken`: it must not be used any more. Calls after the first one do nothing. */
  release(broken?: boolean): void;
  /** Gives it back after something has failed, in order if that is possible. Resolves when it is back; never rejects. */
  failed(): Promise<void>;
}

/** A server, or an address behind which one of several equal ones answers: a connection is to one of them. */
export interface Server<D, S> {
  lend(): Promise<Lent<D>>;
  /** Where the server at the other end of this connection is. */
  look(db: D): Promise<S>;
}

/** `D`: what is read and written with. `S`: where a server is. `P`: a position. */
export interface System<D, S, P> {
  /** Begins the text of its positions. */
  readonly kind: string;
  readonly primary: Server<D, S>;
  readonly replicas: readonly Server<D, S>[];
  encode(position: P): string;
  /** Undefined: the text is no position. */
  decode(text: string): P | undefined;
  /** The later of two; undefined if that cannot be told. */
  later(a: P, b: P): P | undefined;
  covers(state: S, position: P): Cover;
  /** Whether that server is a replica, so that what it lacks is elsewhere. */
  standby(state: S): boolean;
  /** The position that covers all that had been written to the primary when this was seen; undefined: it does not say. */
  positionOf(state: S): P | undefined;
  /** Whether a position that the primary itself does not have is to be given up for the primary's own. */
  supersedes(state: S, position: P): boolean;
}

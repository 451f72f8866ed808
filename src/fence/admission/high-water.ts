/**
 * Where a service keeps the floors of what it guards: the highest token that it has seen for each resource, its high-water
 * mark.
 */

/** What a raise has come to. */
export interface Raised {
  /** Whether the token counts: it is not below the floor. */
  readonly ok: boolean;
  /** The floor afterwards. */
  readonly floor: number;
}

/**
 * A store of floors. `memoryStore`, `levelStore` and `fenceStore` make one; your own is a few lines.
 *
 * If a service has several processes they need one store together: each would else let in what another has seen to be
 * stale.
 */
export interface HighWaterStore {
  /** The floor of a resource; 0 for one that was never raised. Rejects when it cannot be read: never answer 0 then. */
  get(resource: string): Promise<number>;
  /**
   * In one atomic step: raises the floor to the token unless it is higher already. Resolves when it is as durable as the
   * store makes it.
   */
  raise(resource: string, token: number): Promise<Raised>;
  /** Forgets the floor of a resource. For administrators. */
  reset(resource: string): Promise<void>;
}

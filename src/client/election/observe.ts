/**
 * Who leads, from what a watch of the election's lock tells.
 *
 * Tokens grow with every grant, so the order of leaders is the order of their tokens, and a lower one than before is old
 * news. After a reset the state says who leads now; whoever was told so already is not told again.
 */
import { LeaseholdError } from "../errors.js";
import type { Holder } from "../views.js";
import type { WatchEvent } from "../watch/events.js";

/** Options of `client.observe`. */
export interface ObserveOptions {
  /** Aborting it ends the iteration, which rejects with `signal.reason`. */
  readonly signal?: AbortSignal | undefined;
}

/** Who leads. */
export interface Leader {
  /** The fencing token: later leaders have higher ones. */
  readonly token: number;
  /** The Lamport timestamp of the election. */
  readonly timestamp: number;
  /** Who it is, in its own words: "hostname/pid" unless it said otherwise. */
  readonly owner: string;
  /** What it proclaims; empty if nothing. */
  readonly value: Uint8Array;
  /** The value as text. */
  readonly valueText: string;
}

/** What to tell the observer: `value`, or nothing. */
type Told = IteratorYieldResult<Leader | null> | undefined;

export class Observation {
  /** What the observer was told last; undefined: nothing yet. */
  #told: Leader | null | undefined;
  /** What the watch has said since the last reset; undefined: nothing. */
  #now: Leader | null | undefined;
  #highestToken = 0;

  take(event: WatchEvent): Told {
    switch (event.type) {
      case "reset":
        this.#now = undefined;
        return undefined;
      case "state":
        return this.#state(event.holders[0]);
      case "synced":
        return this.#now === undefined ? this.#tell(null) : undefined;
      case "granted":
      case "transferred":
      case "updated":
      case "downgraded":
      case "revoking":
        return this.#holds(event.holder);
      case "queued":
      case "dequeued":
        return undefined;
      default:
        return this.#ended(event.token);
    }
  }

  #state(holder: Holder | undefined): Told {
    if (!holder || !leads(holder)) return this.#tell(null);
    if (holder.token < this.#highestToken) throw wentBack();
    return this.#holds(holder);
  }

  #holds(holder: Holder): Told {
    if (!leads(holder)) return this.#ended(holder.token);
    if (holder.token < this.#highestToken) return undefined;
    this.#highestToken = holder.token;
    return this.#tell(leaderView(holder));
  }

  #ended(token: number): Told {
    return this.#now?.token === token ? this.#tell(null) : undefined;
  }

  #tell(leader: Leader | null): Told {
    this.#now = leader;
    if (this.#told !== undefined && isSame(this.#told, leader)) return undefined;
    this.#told = leader;
    return { value: leader };
  }
}

/** An election is an exclusive lock; who holds it in another way has won nothing. */
const leads = (holder: Holder): boolean => holder.mode === "exclusive";

function leaderView({ token, timestamp, owner, metadata }: Holder): Leader {
  return { token, timestamp, owner, value: metadata, valueText: Buffer.from(metadata).toString("utf8") };
}

function isSame(a: Leader | null, b: Leader | null): boolean {
  if (a === null || b === null) return a === b;
  return a.token === b.token && Buffer.compare(a.value, b.value) === 0;
}

/** Nobody could make sense of what follows, as tokens are no longer in order. */
const wentBack = (): LeaseholdError =>
  new LeaseholdError("INVALID", "the server's store is older than what was observed: it was replaced or restored", {
    reason: "CLUSTER_MISMATCH",
  });

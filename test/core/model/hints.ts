/**
 * What the core has done in a step, where it decides what the semantics leave open: which of two things that are due
 * comes first, which of two locks that the same request has freed is granted first. Hints decide between possibilities
 * that are all allowed; they never make anything possible.
 */
import type { CoreEvent, Route } from "../../../src/server/core/types.js";
import { type Meaning, meaningOfEvent, type Said } from "./meaning.js";

export interface CoreDid {
  /** In this very step, and not in several. */
  readonly exact: boolean;
  readonly events: readonly CoreEvent[];
  readonly replies: readonly Said[];
}

interface Hint {
  readonly kind: string;
  readonly label: string;
}

/** What tells an event from all others of its kind. */
export function labelOf(kind: string, event: Record<string, unknown>): string {
  const parts = kind === "queued" || kind === "dequeued" ? [event.ticketId, event.name] : [event.token, event.end];
  return parts.join(" ");
}

export class Hints {
  readonly exact: boolean;
  /** The events that the model has not come to yet, in their order. */
  readonly #left: Hint[];
  readonly #refused = new Set<string>();
  readonly #died = new Set<string>();
  readonly #replies: readonly Said[];

  constructor({ exact, events, replies }: CoreDid) {
    this.exact = exact;
    this.#replies = replies;
    this.#left = events.flatMap((event) => hintsOf(meaningOfEvent(event)));
    let left = "";
    for (const event of events) {
      if (event.kind === "deadlock") this.#refused.add(event.knot.at(-1)?.ticketId ?? "");
      // How a wait has ended is told behind its leaving.
      else if (event.kind === "dequeued") left = event.waiter.ticketId;
      else if (event.kind === "acquireEnded" && event.outcome === "expired") this.#died.add(left);
    }
  }

  /** The model has come to it. */
  done(kind: string, label: string): void {
    const index = this.#left.findIndex((hint) => hint.kind === kind && hint.label === label);
    // A grant has two hints, by its token and by its ticket.
    if (index >= 0) this.#left.splice(index, kind === "granted" ? 2 : 1);
  }

  /** How soon the core has the first event with one of these labels. */
  rank(kinds: readonly string[], labels: readonly string[]): number {
    const index = this.#left.findIndex(({ kind, label }) => kinds.includes(kind) && labels.includes(label));
    return index < 0 ? Number.POSITIVE_INFINITY : index;
  }

  /** The core has refused the ticket because of a deadlock. */
  wasRefused(ticketId: string): boolean {
    return this.#refused.has(ticketId);
  }

  /** The core has ended the ticket because its lease died, and not for another reason of the same moment. */
  diedWithLease(ticketId: string): boolean {
    return this.#died.has(ticketId);
  }

  /** What the core has told the one who waits, as text. */
  told(route: Route, seq: number): string[] {
    const replies = this.#replies.filter((reply) => reply.route === route && reply.what.seq === seq);
    return replies.map(({ what }) => JSON.stringify(what.outcome));
  }
}

function hintsOf(meaning: Meaning | null): Hint[] {
  if (meaning === null) return [];
  const { kind } = meaning;
  const hint = { kind, label: labelOf(kind, meaning) };
  return kind === "granted" ? [hint, { kind: "grantedTo", label: String(meaning.ticketId) }] : [hint];
}

/**
 * Waits that wait for each other.
 *
 * A hold is stuck when it is claimed and none of the tickets that claim it can proceed. A ticket can proceed when, at each
 * of its places, the ticket before it can proceed and it fits in beside the stuck holds alone: all others will be
 * released. What cannot proceed at the fixed point of these rules waits for itself.
 *
 * The search begins at one ticket. It gathers the tickets on which that one depends, crosses out those that can proceed,
 * and does so again where that made a difference. If the first one is left, the circles are looked for among what is left,
 * along the lines of who is in whose way, and the youngest wait in a circle is refused. All of that looks at a bounded
 * number of tickets and holds; a search that would need more is given up.
 */
import { circlesFrom } from "./circles.js";
import { fitsBeside, isAlive } from "./holders.js";
import { firstPlace, placeAfter, placeBefore } from "./queue.js";
import { keyOf, rememberRequest } from "./requests.js";
import type { Hold, Lock, Place, State, Ticket } from "./state.js";
import { removeTicket } from "./tickets.js";
import type { Effects, KnotWait, LockItem, Refusal } from "./types.js";

/** Looks for a deadlock of a suspect. Returns whether somebody was refused: then there may be another. */
export function breakKnot(state: State, fx: Effects, suspect: Hold, nowMs: number): boolean {
  if (state.holds.get(suspect.token) !== suspect || !isAlive(suspect) || suspect.claimers === null) return false;
  if (suspect.lock.head === null) return false; // nobody waits for it
  for (const ticket of suspect.claimers) {
    if (ticket.lease.dead !== null) continue;
    const knot = findKnot(state, fx, ticket);
    // As long as one of those who claim it can proceed, or the search is too long, it is no matter for the others.
    if (knot === null) return false;
    refuse(state, fx, knot, nowMs);
    return true;
  }
  return false;
}

/**
 * Whether somebody waits for what a new ticket claims. Else it closes no circle: nobody stands behind it yet. So a search
 * of a long queue is spared to all who keep what nobody wants.
 */
export function isWaitedFor({ claims }: Ticket): boolean {
  for (const { lock } of claims ?? []) if (lock.head !== null) return true;
  return false;
}

/** A waiting ticket leaves its queues like one whose wait is over, but with another answer. */
export function refuse(state: State, fx: Effects, knot: readonly Ticket[], nowMs: number): void {
  const victim = knot.at(-1) as Ticket;
  const key = keyOf(victim);
  removeTicket(state, fx, victim, deadlocked(fx, knot), nowMs);
  rememberRequest(state, fx, key, "deadlock", 0, nowMs);
}

/** Tells of the knot, and what its youngest wait is answered. */
export function deadlocked(fx: Effects, knot: readonly Ticket[]): Refusal {
  const waits = knot.map((ticket) => viewWait(ticket, knot));
  fx.events.push({ kind: "deadlock", knot: waits });
  return { kind: "refused", reason: "DEADLOCK", message: knotText(waits), knot: waits };
}

/** A knot for people. */
export function knotText(knot: readonly KnotWait[]): string {
  const text = knot.map(({ ticketId, owner, waitsFor, holds }) => {
    const held = holds.length > 0 ? ` and keeps ${names(holds)}` : "";
    return `${ticketId}${owner && ` (${owner})`} waits for ${names(waitsFor)}${held}`;
  });
  return `this wait would never end: ${text.join("; ")}`;
}

const names = (locks: readonly string[]): string => locks.map((name) => JSON.stringify(name)).join(" and ");

function viewWait(ticket: Ticket, knot: readonly Ticket[]): KnotWait {
  const wanted = new Set(knot.flatMap(({ places }) => places.map(({ lock }) => lock)));
  const held = [...(ticket.claims ?? [])].filter((hold) => isAlive(hold) && wanted.has(hold.lock));
  return {
    ticketId: `T${ticket.serial}`,
    owner: ticket.owner || ticket.lease.owner,
    contenderId: ticket.contenderId,
    waitsFor: ticket.places.map(({ lock }) => lock.name),
    holds: [...new Set(held.map(({ lock }) => lock.name))],
  };
}

/** The circle whose youngest wait has to be refused, the oldest first; null: `start` can proceed, or nobody knows. */
export function findKnot(state: State, fx: Effects, start: Ticket): Ticket[] | null {
  const search = new Search(state);
  const knot = search.run(start);
  if (search.cut) fx.events.push({ kind: "deadlockSearchCut" });
  return knot;
}

class Search {
  readonly #holdersMax: number;
  #left: number;
  /** The tickets on which the first one depends. */
  readonly #found = new Set<Ticket>();
  readonly #proceeding = new Set<Ticket>();
  /** Of each lock that is waited for, the first place whose ticket is not known to proceed. */
  readonly #fronts = new Map<Lock, Place | null>();

  constructor(state: State) {
    this.#left = state.limits.deadlockSearchMax;
    this.#holdersMax = state.limits.holdersPerLockMax;
  }

  /** It has looked at more than it may. */
  get cut(): boolean {
    return this.#left < 0;
  }

  run(start: Ticket): Ticket[] | null {
    this.#gather(start);
    if (!this.cut) this.#reduce(start);
    if (this.cut || this.#proceeding.has(start)) return null;
    const circles = circlesFrom(start, (ticket) => this.#blockers(ticket));
    if (this.cut) return null;
    let knot: Ticket[] = [];
    for (const circle of circles) {
      circle.sort((a, b) => a.serial - b.serial);
      if (serialOfYoungest(circle) > serialOfYoungest(knot)) knot = circle;
    }
    if (knot.length === 0) throw new Error(`ticket T${start.serial} cannot proceed, but nothing is in its way`);
    return knot;
  }

  /** Whoever stands before a ticket, and whoever claims a hold that may be in its way. */
  #gather(start: Ticket): void {
    const open = [start];
    this.#found.add(start);
    const add = (ticket: Ticket): void => {
      if (this.#found.has(ticket)) return;
      this.#found.add(ticket);
      open.push(ticket);
    };
    for (let ticket = open.pop(); ticket !== undefined && !this.cut; ticket = open.pop()) {
      this.#left--;
      for (const place of ticket.places) {
        const { lock } = place;
        if (!this.#fronts.has(lock)) this.#fronts.set(lock, firstPlace(lock));
        const before = placeBefore(place);
        if (before !== null) add(before.ticket);
        for (let hold = lock.first; hold !== null && !this.cut; hold = hold.next) {
          this.#left--;
          for (const claimer of claimersOf(hold)) if (this.#mayBlock(hold, place.item)) add(claimer);
        }
      }
    }
  }

  /** Crosses out whoever can proceed, until that changes nothing more. */
  #reduce(start: Ticket): void {
    const open = [...this.#found].sort((a, b) => b.serial - a.serial); // the oldest comes off first
    for (let ticket = open.pop(); ticket !== undefined && !this.cut; ticket = open.pop()) {
      if (this.#proceeding.has(ticket) || !this.#canProceed(ticket)) continue;
      this.#proceeding.add(ticket);
      if (ticket === start) return;
      for (const place of ticket.places) this.#look(place.lock, open);
      for (const hold of ticket.claims ?? []) this.#look(hold.lock, open);
    }
  }

  /** Something has changed at a lock: the first one there that does not proceed yet may. */
  #look(lock: Lock, open: Ticket[]): void {
    let front = this.#fronts.get(lock);
    if (front === undefined) return; // nobody whom we look at waits there
    for (; front !== null && this.#proceeding.has(front.ticket); front = placeAfter(front)) this.#left--;
    this.#fronts.set(lock, front);
    if (front !== null && this.#found.has(front.ticket)) open.push(front.ticket);
  }

  #canProceed(ticket: Ticket): boolean {
    this.#left--;
    for (const place of ticket.places) {
      const before = placeBefore(place);
      if (before !== null && !this.#proceeding.has(before.ticket)) return false;
      if (!this.#fits(place)) return false;
    }
    return true;
  }

  #fits({ lock, item }: Place): boolean {
    return fitsBeside(lock, item, this.#holdersMax, (hold) => {
      this.#left--;
      return this.#isStuck(hold);
    });
  }

  #isStuck(hold: Hold): boolean {
    let claimed = false;
    for (const ticket of claimersOf(hold)) {
      if (this.#proceeding.has(ticket)) return false;
      claimed = true;
    }
    return claimed;
  }

  /** Shared holds keep out a shared candidate only when there are too many of them. */
  #mayBlock(hold: Hold, item: LockItem): boolean {
    return item.mode !== "shared" || hold.mode !== "shared" || hold.lock.holders >= this.#holdersMax;
  }

  /** Those who are in the way of a ticket that cannot proceed. */
  #blockers(ticket: Ticket): Ticket[] {
    const blockers = new Set<Ticket>();
    for (const place of ticket.places) {
      const before = placeBefore(place);
      if (before !== null && !this.#proceeding.has(before.ticket)) blockers.add(before.ticket);
      if (this.#fits(place)) continue;
      for (let hold = place.lock.first; hold !== null && !this.cut; hold = hold.next) {
        this.#left--;
        if (!this.#isStuck(hold) || !this.#mayBlock(hold, place.item)) continue;
        for (const claimer of claimersOf(hold)) blockers.add(claimer);
      }
    }
    return [...blockers];
  }
}

const serialOfYoungest = (knot: readonly Ticket[]): number => knot.at(-1)?.serial ?? 0;

/** Those who claim a hold that counts, and still wait. */
function* claimersOf(hold: Hold): Iterable<Ticket> {
  if (hold.claimers === null || !isAlive(hold)) return;
  for (const ticket of hold.claimers) if (ticket.lease.dead === null) yield ticket;
}

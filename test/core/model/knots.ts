/**
 * Deadlocks, straight from the definition: cross out whoever can proceed until nobody else can; what is left waits for
 * itself.
 */
import type { LockItem } from "../../../src/server/core/types.js";
import { fitsBeside, type Held } from "./compatible.js";
import { claimsOf, type ModelState } from "./state.js";

/** A ticket, as far as it matters here. */
interface Waiting {
  readonly serial: number;
  readonly items: readonly LockItem[];
}

/** A hold, as far as it matters here. */
interface Kept extends Held {
  readonly name: string;
}

export const knotsOf = (state: ModelState) =>
  new Knots(state.tickets, state.holds, (ticket) => claimsOf(state, ticket), state.limits.holdersPerLockMax);

export class Knots<T extends Waiting, H extends Kept> {
  readonly #claims: ReadonlyMap<T, readonly H[]>;
  readonly #proceeding = new Set<T>();

  /** `tickets` in the order of their numbers. */
  constructor(
    private readonly tickets: readonly T[],
    private readonly holds: readonly H[],
    claims: (ticket: T) => readonly H[],
    private readonly holdersMax: number,
  ) {
    this.#claims = new Map(tickets.map((ticket) => [ticket, claims(ticket)]));
    if (tickets.every((ticket) => !this.claims(ticket))) {
      for (const ticket of tickets) this.#proceeding.add(ticket);
      return;
    }
    let size = -1;
    while (size !== this.#proceeding.size) {
      size = this.#proceeding.size;
      for (const ticket of tickets) if (this.#proceeds(ticket)) this.#proceeding.add(ticket);
    }
  }

  /** Tickets that claim something and cannot proceed. */
  get starts(): T[] {
    return this.tickets.filter((ticket) => this.claims(ticket) && !this.canProceed(ticket));
  }

  canProceed(ticket: T): boolean {
    return this.#proceeding.has(ticket);
  }

  /** Whether its caller keeps anything while it waits. */
  claims(ticket: T): boolean {
    return (this.#claims.get(ticket) ?? []).length > 0;
  }

  #claimers(hold: H): T[] {
    return this.tickets.filter((ticket) => this.#claims.get(ticket)?.includes(hold));
  }

  /** The ticket before this one in the queue of that lock. */
  #before(ticket: T, name: string): T | undefined {
    return this.tickets.findLast(({ serial, items }) => serial < ticket.serial && items.some((i) => i.name === name));
  }

  #isStuck(hold: H): boolean {
    const claiming = this.#claimers(hold);
    return claiming.length > 0 && !claiming.some((ticket) => this.#proceeding.has(ticket));
  }

  #stuckHolds(name: string): H[] {
    return this.holds.filter((hold) => hold.name === name && this.#isStuck(hold));
  }

  #proceeds(ticket: T): boolean {
    return ticket.items.every((item) => {
      const first = this.#before(ticket, item.name);
      if (first !== undefined && !this.#proceeding.has(first)) return false;
      return fitsBeside(item, this.#stuckHolds(item.name), this.holdersMax);
    });
  }

  /** What keeps a ticket from proceeding: other tickets, or itself. */
  #waitsFor(ticket: T): T[] {
    return ticket.items.flatMap((item) => {
      const first = this.#before(ticket, item.name);
      const ahead = first === undefined || this.#proceeding.has(first) ? [] : [first];
      const stuck = this.#stuckHolds(item.name);
      if (fitsBeside(item, stuck, this.holdersMax)) return ahead;
      return [...ahead, ...stuck.flatMap((hold) => this.#claimers(hold))];
    });
  }

  /** All that can be reached from there in one step or more. */
  #reach(start: T): Set<T> {
    const reached = new Set<T>();
    const next = [...this.#waitsFor(start)];
    for (let ticket = next.pop(); ticket !== undefined; ticket = next.pop()) {
      if (reached.has(ticket)) continue;
      reached.add(ticket);
      next.push(...this.#waitsFor(ticket));
    }
    return reached;
  }

  /** The circle of the youngest ticket that a search from there would refuse, the oldest first; empty: none. */
  circleFrom(start: T): T[] {
    if (this.canProceed(start)) return [];
    const found = [start, ...this.#reach(start)];
    const circling = found.filter((ticket) => this.#reach(ticket).has(ticket));
    const youngest = circling.reduce((a, b) => (a.serial > b.serial ? a : b));
    const reached = this.#reach(youngest);
    const circle = circling.filter((ticket) => ticket === youngest || reached.has(ticket));
    const whole = circle.filter((ticket) => this.#reach(ticket).has(youngest));
    return [...new Set(whole)].sort((a, b) => a.serial - b.serial);
  }

  /** Locks that the ticket keeps and others of its circle want. */
  wantedHolds(ticket: T, circle: readonly T[]): string[] {
    const kept = this.#claims.get(ticket) ?? [];
    const wanted = kept.filter(({ name }) => circle.some(({ items }) => items.some((item) => item.name === name)));
    return [...new Set(wanted.map(({ name }) => name))].sort();
  }
}

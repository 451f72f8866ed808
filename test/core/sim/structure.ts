/** Checks that the core's indexes agree with each other, and that what can be granted has been. */
import type { Lease, Lock, Place, State } from "../../../src/server/core/state.js";
import { fitsBeside } from "../model/compatible.js";
import { ensure } from "./violation.js";

export function checkStructure(state: Readonly<State>): void {
  let waiters = 0;
  let holders = 0;
  for (const [name, lock] of state.locks) {
    ensure(lock.name === name, () => `lock ${name} is filed as ${lock.name}`);
    waiters += checkQueue(state, lock);
    holders += checkHolders(state, lock);
    checkSemaphore(lock);
    const exists = lock.first !== null || lock.head !== null || lock.delay !== null;
    ensure(exists || state.unsettled.has(lock), () => `${name} is neither held nor waited for, and not forgotten`);
  }
  ensure(state.holds.size === holders, () => `locks have ${holders} holds, but there are ${state.holds.size}`);
  const places = [...state.tickets.values()].reduce((sum, ticket) => sum + ticket.places.length, 0);
  ensure(places === waiters, () => `queues have ${waiters} places, but tickets have ${places}`);
  const names = state.lockIndex.page("", "", state.locks.size + 1);
  ensure(names.join() === [...state.locks.keys()].sort().join(), () => "the index of locks is not what there is");
  const displayIds = state.leaseIndex.page("", "", state.leases.size + 1);
  const expected = [...state.leasesByDisplayId.keys()].sort().join();
  ensure(displayIds.join() === expected, () => "the index of leases is not what there is");
  ensure(state.leasesByDisplayId.size === state.leases.size, () => "a lease has no display id");
  checkHolds(state);
  checkLeases(state);
  checkSessions(state);
  checkRequests(state);
  checkUsage(state);
}

function checkQueue(state: Readonly<State>, lock: Lock): number {
  const { name } = lock;
  let count = 0;
  let previous: Place | null = null;
  for (let place = lock.head; place !== null; place = place.next) {
    count++;
    const { ticket } = place;
    const { serial } = ticket;
    ensure(place.previous === previous, () => `ticket T${serial} of ${name} is linked wrongly`);
    const before = previous?.ticket.serial ?? 0;
    ensure(before < serial, () => `the queue of ${name} is out of order at T${serial}`);
    ensure(place.lock === lock && ticket.places.includes(place), () => `T${serial} does not know its place in ${name}`);
    ensure(state.tickets.get(serial) === ticket, () => `T${serial} waits for ${name} and is gone`);
    previous = place;
  }
  ensure(lock.tail === previous, () => `the tail of ${name} is not its last ticket`);
  ensure(lock.waiters === count, () => `${count} wait for ${name}, but ${lock.waiters} are counted`);
  return count;
}

function checkHolders(state: Readonly<State>, lock: Lock): number {
  const { name } = lock;
  let count = 0;
  let previous = null;
  for (let hold = lock.first; hold !== null; hold = hold.next) {
    count++;
    const { token } = hold;
    ensure(hold.previous === previous, () => `token ${token} of ${name} is linked wrongly`);
    const before: number = previous?.token ?? 0;
    ensure(before < token, () => `the holders of ${name} are out of order at ${token}`);
    ensure(state.holds.get(token) === hold && hold.lock === lock, () => `token ${token} of ${name} is filed elsewhere`);
    previous = hold;
  }
  ensure(lock.last === previous, () => `the last holder of ${name} is not the last`);
  ensure(lock.holders === count, () => `${count} hold ${name}, but ${lock.holders} are counted`);
  return count;
}

function checkSemaphore(lock: Lock): void {
  const { name, semaphore } = lock;
  const slots = new Map<number, number>();
  const limits = new Map<number, number>();
  let permits = 0;
  for (let hold = lock.first; hold !== null; hold = hold.next) {
    if (hold.mode !== "semaphore") continue;
    const { token, permitLimit } = hold;
    permits += hold.permits;
    limits.set(permitLimit, (limits.get(permitLimit) ?? 0) + 1);
    ensure(hold.slots.length === hold.permits, () => `token ${token} of ${name} has ${hold.slots.length} slots`);
    if (hold.lease.dead !== null) continue; // its slots may have been given to others
    for (const slot of hold.slots) {
      ensure(!slots.has(slot), () => `slot ${slot} of ${name} is held by ${slots.get(slot)} and ${token}`);
      slots.set(slot, token);
    }
  }
  ensure((semaphore?.permits ?? 0) === permits, () => `${permits} permits of ${name}, ${semaphore?.permits} counted`);
  const counted = [...(semaphore?.limits ?? [])].filter(([, count]) => count > 0);
  const same = counted.length === limits.size && counted.every(([limit, count]) => limits.get(limit) === count);
  ensure(same, () => `the limits of ${name} are not those of its holders`);
}

function checkHolds(state: Readonly<State>): void {
  const held = { exclusive: 0, shared: 0, semaphore: 0 };
  for (const [token, hold] of state.holds) {
    held[hold.mode]++;
    ensure(hold.token === token, () => `token ${hold.token} is filed as ${token}`);
    ensure(state.locks.get(hold.lock.name) === hold.lock, () => `token ${token} holds a lock that is forgotten`);
    ensure(state.leases.get(hold.lease.id) === hold.lease, () => `token ${token} holds by a lease that is gone`);
    ensure(hold.lease.holds.has(hold), () => `token ${token} is not among those of its lease`);
    if (hold.seq > 0) {
      ensure(hold.lease.session?.holds.has(hold) === true, () => `token ${token} is not among those of its session`);
    }
    ensure(hold.set?.holds.includes(hold) !== false, () => `token ${token} is not among those of its AcquireAll`);
    ensure(token <= state.token, () => `token ${token} is above the last one, ${state.token}`);
  }
  for (const mode of ["exclusive", "shared", "semaphore"] as const) {
    ensure(held[mode] === state.held[mode], () => `${held[mode]} ${mode} holds, but ${state.held[mode]} are counted`);
  }
}

function checkLeases(state: Readonly<State>): void {
  let tickets = 0;
  let holds = 0;
  for (const lease of state.leases.values()) {
    const { displayId } = lease;
    tickets += lease.tickets.size;
    holds += lease.holds.size;
    const places = [...lease.tickets].reduce((sum, ticket) => sum + ticket.places.length, 0);
    ensure(lease.waits === places, () => `lease ${displayId} has ${places} places, but ${lease.waits} are counted`);
    if (lease.dead === null) {
      ensure(lease.heapIndex >= 0, () => `lease ${displayId} has no deadline`);
      ensure(lease.dueMs <= lease.deadlineMs, () => `lease ${displayId} is due after its deadline`);
      if (lease.own) {
        ensure(lease.holds.size + lease.tickets.size > 0, () => `own lease ${displayId} has outlived its grant`);
      }
    } else ensure(state.collecting.has(lease), () => `dead lease ${displayId} is not being collected`);
    const { session } = lease;
    if (session === null) continue;
    ensure(state.sessions.get(session.id) === session, () => `lease ${displayId} has a session that is gone`);
    ensure(session.leases.get(lease.seq) === lease, () => `lease ${displayId} is not among those of its session`);
    const owner = lease.principal === "" || lease.principal === session.principal;
    ensure(owner, () => `lease ${displayId} of ${lease.principal} is renewed with a session of "${session.principal}"`);
  }
  ensure(holds === state.holds.size, () => `${state.holds.size} holds, but leases have ${holds}`);
  ensure(tickets === state.tickets.size, () => `${state.tickets.size} wait, but leases have ${tickets} tickets`);
  for (const lease of state.collecting) {
    ensure(state.leases.get(lease.id) === lease, () => `lease ${lease.displayId} is gone and being collected`);
  }
}

function checkSessions(state: Readonly<State>): void {
  for (const session of state.sessions.values()) {
    const { id } = session;
    ensure(session.route !== null || session.leases.size > 0, () => `session ${id} is over and not forgotten`);
    for (const hold of session.holds) {
      ensure(state.holds.get(hold.token) === hold, () => `session ${id} has the hold ${hold.token}, which is gone`);
    }
    for (const [seq, ticket] of session.tickets) {
      ensure(ticket.seq === seq && session.unacked.get(seq) === ticket, () => `session ${id} lost ticket ${seq}`);
      const here = ticket.route === null || ticket.route === session.route;
      ensure(here, () => `ticket ${seq} of session ${id} waits on another stream`);
    }
    const { commandsPerSessionMax } = state.limits;
    // A restart takes up what was acknowledged one by one, too; the resumption that follows forgets it again.
    const bounded = session.route === null || session.unacked.size <= 2 * commandsPerSessionMax;
    ensure(bounded, () => `session ${id} remembers too much`);
    for (const [seq, effect] of session.unacked) {
      if (effect.kind === "lease") ensure(session.leases.get(seq) === effect, () => `session ${id} lost lease ${seq}`);
      if (effect.kind === "hold") ensure(session.holds.has(effect), () => `session ${id} lost hold ${seq}`);
      if (effect.kind === "ticket") ensure(session.tickets.get(seq) === effect, () => `session ${id} lost ${seq}`);
    }
  }
}

/** What each principal has is counted as it comes and goes. */
function checkUsage(state: Readonly<State>): void {
  const has = new Map<string, number[]>();
  const add = ({ principal }: Lease, what: number, count: number): void => {
    const counts = has.get(principal) ?? [0, 0, 0];
    counts[what] = (counts[what] as number) + count;
    if (principal !== "") has.set(principal, counts);
  };
  for (const lease of state.leases.values()) add(lease, 0, 1);
  for (const { lease } of state.holds.values()) add(lease, 1, 1);
  for (const { lease, places } of state.tickets.values()) add(lease, 2, places.length);
  const counted = [...state.usage].map(([name, { leases, locks, waiters }]) => `${name} ${leases},${locks},${waiters}`);
  const should = [...has].map(([name, counts]) => `${name} ${counts.join()}`);
  const agree = counted.sort().join("; ") === should.sort().join("; ");
  ensure(agree, () => `principals have ${should.join("; ")}, but ${counted.join("; ")} is counted`);
}

function checkRequests(state: Readonly<State>): void {
  let past = 0;
  for (const entry of state.requests.values()) {
    if (entry.kind === "request") past++;
    else if (entry.kind === "hold") ensure(state.holds.get(entry.token) === entry, () => "a request's hold is gone");
    else ensure(entry.lease.tickets.has(entry), () => `a request's ticket T${entry.serial} is gone`);
  }
  ensure(past === state.pastRequests, () => `${past} past requests, but ${state.pastRequests} are counted`);
  for (const [route, ticket] of state.callTickets) {
    ensure(ticket.route === route && ticket.lease.tickets.has(ticket), () => `a call waits for T${ticket.serial}`);
  }
  for (const ticket of state.tickets.values()) {
    const { route, serial } = ticket;
    ensure(ticket.heapIndex >= 0, () => `ticket T${serial} has no deadline`);
    if (route?.kind !== "call") continue;
    ensure(state.callTickets.get(route) === ticket, () => `the call that waits at T${serial} is not known`);
  }
}

/** With nothing left to look at: whoever is alive, there, first in all queues and fits in has been granted. */
export function checkRest(state: Readonly<State>, nowMs: number): void {
  if (state.halted !== "" || state.unsettled.size > 0 || state.collecting.size > 0) return;
  for (const ticket of state.tickets.values()) {
    const waits = ticket.route === null || !ticket.places.every((place) => isFree(state, place, nowMs));
    ensure(waits, () => `T${ticket.serial} is there, first, and fits in, and is not granted`);
  }
}

function isFree(state: Readonly<State>, { ticket, lock, item }: Place, nowMs: number): boolean {
  if (lock.head?.ticket !== ticket) return false;
  // A delay that has run out is looked at when it comes up.
  if (lock.delay !== null && (lock.delay.untilMs > nowMs || lock.delay.heapIndex >= 0)) return false;
  const holds = [];
  for (let hold = lock.first; hold !== null; hold = hold.next) holds.push(hold);
  return fitsBeside(item, holds, state.limits.holdersPerLockMax);
}

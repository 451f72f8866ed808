/** Checks that the core's indexes agree with each other. */
import type { Lock, State, Ticket } from "../../../src/server/core/state.js";
import { ensure } from "./violation.js";

export function checkStructure(state: Readonly<State>): void {
  let waiters = 0;
  for (const [name, lock] of state.locks) {
    ensure(lock.name === name, () => `lock ${name} is filed as ${lock.name}`);
    waiters += checkLock(state, lock);
  }
  ensure(state.waiters === waiters, () => `${waiters} wait, but ${state.waiters} are counted`);
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
}

function checkLock(state: Readonly<State>, lock: Lock): number {
  const { name, hold } = lock;
  if (hold !== null) {
    ensure(state.holds.get(hold.token) === hold, () => `the hold of ${name} is not among the holds`);
    ensure(hold.lock === lock, () => `the hold of ${name} is of another lock`);
    ensure(hold.lease.holds.has(hold), () => `the hold of ${name} is not among those of its lease`);
  }
  let count = 0;
  let previous: Ticket | null = null;
  for (let ticket = lock.head; ticket !== null; ticket = ticket.next) {
    count++;
    const { serial } = ticket;
    ensure(ticket.previous === previous, () => `ticket T${serial} of ${name} is linked wrongly`);
    ensure(previous === null || previous.serial < serial, () => `the queue of ${name} is out of order at T${serial}`);
    ensure(ticket.lease.tickets.has(ticket), () => `ticket T${serial} is not among those of its lease`);
    ensure(ticket.heapIndex >= 0, () => `ticket T${serial} has no deadline`);
    previous = ticket;
  }
  ensure(lock.tail === previous, () => `the tail of ${name} is not its last ticket`);
  ensure(lock.waiters === count, () => `${count} wait for ${name}, but ${lock.waiters} are counted`);
  ensure(hold !== null || count > 0, () => `${name} is neither held nor waited for, and not forgotten`);
  // At rest: what can be granted has been.
  const { head } = lock;
  const stuck = hold === null && head !== null && head.lease.dead === null && head.route !== null;
  ensure(!stuck || state.halted !== "", () => `${name} is free, and its first waiter is there, but it is not granted`);
  return count;
}

function checkHolds(state: Readonly<State>): void {
  for (const [token, hold] of state.holds) {
    ensure(hold.token === token, () => `token ${hold.token} is filed as ${token}`);
    ensure(hold.lock.hold === hold, () => `token ${token} is not the one that holds ${hold.lock.name}`);
    ensure(state.locks.get(hold.lock.name) === hold.lock, () => `token ${token} holds a lock that is forgotten`);
    ensure(state.leases.get(hold.lease.id) === hold.lease, () => `token ${token} holds by a lease that is gone`);
    if (hold.seq > 0) {
      ensure(hold.lease.session?.holds.has(hold) === true, () => `token ${token} is not among those of its session`);
    }
    ensure(token <= state.token, () => `token ${token} is above the last one, ${state.token}`);
  }
}

function checkLeases(state: Readonly<State>): void {
  let tickets = 0;
  let holds = 0;
  for (const lease of state.leases.values()) {
    const { displayId } = lease;
    tickets += lease.tickets.size;
    holds += lease.holds.size;
    if (lease.dead === null) {
      ensure(lease.heapIndex >= 0, () => `lease ${displayId} has no deadline`);
      ensure(lease.dueMs <= lease.deadlineMs, () => `lease ${displayId} is due after its deadline`);
      if (lease.own) {
        ensure(lease.holds.size + lease.tickets.size === 1, () => `own lease ${displayId} has outlived its grant`);
      }
    } else ensure(state.collecting.has(lease), () => `dead lease ${displayId} is not being collected`);
    const { session } = lease;
    if (session === null) continue;
    ensure(state.sessions.get(session.id) === session, () => `lease ${displayId} has a session that is gone`);
    ensure(session.leases.get(lease.seq) === lease, () => `lease ${displayId} is not among those of its session`);
  }
  ensure(holds === state.holds.size, () => `${state.holds.size} holds, but leases have ${holds}`);
  ensure(tickets === state.waiters, () => `${state.waiters} wait, but leases have ${tickets} tickets`);
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
  for (const lock of state.locks.values()) {
    for (let ticket = lock.head; ticket !== null; ticket = ticket.next) {
      const { route, serial } = ticket;
      if (route?.kind !== "call") continue;
      ensure(state.callTickets.get(route) === ticket, () => `the call that waits at T${serial} is not known`);
    }
  }
}

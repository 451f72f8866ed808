/**
 * The queues of locks.
 *
 * A ticket has one place in the queue of each of its locks. All queues are in the order of ticket numbers: a ticket
 * takes its places in one step, at the ends. Tickets of dead leases may still stand in a queue; they count as absent.
 */
import type { Lock, Place, State, Ticket } from "./state.js";

/** Puts a place at the end of the queue of its lock. */
export function addPlace(place: Place): void {
  const { lock } = place;
  place.previous = lock.tail;
  if (lock.tail === null) lock.head = place;
  else lock.tail.next = place;
  lock.tail = place;
  lock.waiters++;
}

/** Takes a place out of its queue. */
export function removePlace(place: Place): void {
  const { lock } = place;
  if (place.previous === null) lock.head = place.next;
  else place.previous.next = place.next;
  if (place.next === null) lock.tail = place.previous;
  else place.next.previous = place.previous;
  place.previous = null;
  place.next = null;
  lock.waiters--;
}

const skipDead = (place: Place | null): Place | null => {
  let found = place;
  while (found !== null && found.ticket.lease.dead !== null) found = found.next;
  return found;
};

/** The first in the queue; null: nobody waits. */
export const firstPlace = (lock: Lock): Place | null => skipDead(lock.head);

/** The next one behind this place; null: it is the last. */
export const placeAfter = (place: Place): Place | null => skipDead(place.next);

/** The next one ahead of this place; null: it is the first. */
export function placeBefore(place: Place): Place | null {
  let found = place.previous;
  while (found !== null && found.ticket.lease.dead !== null) found = found.previous;
  return found;
}

/** 1 for the first. Walks the queue: at most the bounded number of waiters of one lock. */
export function positionOf(place: Place): number {
  let position = 1;
  for (let ahead = placeBefore(place); ahead !== null; ahead = placeBefore(ahead)) position++;
  return position;
}

/** How many wait for the lock. */
export function countWaiters(state: State, lock: Lock): number {
  if (state.collecting.size === 0) return lock.waiters;
  let count = 0;
  for (let place = firstPlace(lock); place !== null; place = placeAfter(place)) count++;
  return count;
}

/** The ticket's place in the queue of that lock. */
export const placeAt = (ticket: Ticket, lock: Lock): Place | undefined =>
  ticket.places.find((place) => place.lock === lock);

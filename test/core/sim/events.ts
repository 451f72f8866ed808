/**
 * Follows the locks by their events alone, as a watcher would, and judges each event: who is let in, in whose turn, with
 * which slots, and not before a lock delay is over. What it has followed must be what the core has.
 */
import type { State } from "../../../src/server/core/state.js";
import type { Command, CoreEvent, CoreLimits, HoldEnd, LockEvent, LockMode } from "../../../src/server/core/types.js";
import { fitsBeside } from "../model/compatible.js";
import { isLockEvent } from "../model/meaning.js";
import type { HoldSnap, Snapshot } from "./snapshot.js";
import { ensure } from "./violation.js";

interface Followed {
  readonly name: string;
  readonly token: number;
  mode: LockMode;
  readonly permits: number;
  readonly permitLimit: number;
  readonly slots: readonly number[];
}

type Granted = Extract<LockEvent, { kind: "granted" }>;

const delaying: readonly HoldEnd[] = ["expired", "max_hold", "forced"];

export class EventChecker {
  readonly #holds = new Map<number, Followed>();
  /** Ticket ids by lock, in the order in which they queued. */
  readonly #queues = new Map<string, string[]>();
  /** Until when nobody gets the lock. */
  readonly #delays = new Map<string, number>();
  #timestamp = 0;
  /** What is taken away in this step ends without its holder's word. */
  #unconfirmed = false;
  /** The AcquireAll whose grants are coming. */
  #set = "";

  constructor(private readonly limits: CoreLimits) {}

  after(events: readonly CoreEvent[], command: Command, before: Snapshot, after: Snapshot, nowMs: number): void {
    const request = command.kind === "call" ? command.request.kind : "";
    this.#unconfirmed = command.kind === "expire" || request === "forceRelease";
    for (const event of events) if (isLockEvent(event)) this.#event(event, before, after, nowMs);
    this.#compare(after);
  }

  #event(event: LockEvent, before: Snapshot, after: Snapshot, nowMs: number): void {
    const { kind, name, timestamp } = event;
    const set = kind === "granted" ? `${event.hold.leaseDisplayId} ${event.ticketId}` : "";
    const same = set !== "" && set === this.#set && timestamp === this.#timestamp;
    const transferred = kind === "holdEnded" && event.end === "transferred";
    ensure(
      timestamp > this.#timestamp || same,
      () => `event ${kind} of ${name} at ${timestamp}, after ${this.#timestamp}`,
    );
    if (!transferred) this.#timestamp = timestamp;
    this.#set = set;
    if (kind === "queued") this.#queue(name).push(event.waiter.ticketId);
    else if (kind === "dequeued") this.#leave(name, event.waiter.ticketId);
    else if (kind === "granted") this.#granted(event, before, after, nowMs);
    else if (kind === "holdEnded") this.#ended(event, before, after, nowMs);
    else {
      const hold = this.#holds.get(event.token);
      ensure(hold?.name === name, () => `${kind}: token ${event.token} does not hold ${name}`);
      if (kind === "downgraded" && hold !== undefined) hold.mode = "shared";
    }
  }

  #queue(name: string): string[] {
    const queue = this.#queues.get(name) ?? [];
    this.#queues.set(name, queue);
    return queue;
  }

  #leave(name: string, ticketId: string): void {
    const queue = this.#queue(name);
    ensure(queue.includes(ticketId), () => `${ticketId} left the queue of ${name} and was not in it`);
    queue.splice(queue.indexOf(ticketId), 1);
  }

  #granted(event: Granted, before: Snapshot, after: Snapshot, nowMs: number): void {
    const { name, token, mode, ticketId, transferredFrom, hold } = event;
    // Dead leases hold nothing, although it may not be cleared away.
    const alive = ({ token: other }: Followed): boolean => {
      const snap = before.holds.get(other) ?? after.holds.get(other);
      const lease = snap === undefined ? undefined : (after.leases.get(snap.leaseId) ?? undefined);
      return snap === undefined || (lease !== undefined && !lease.dead);
    };
    if (transferredFrom !== 0) this.#holds.delete(transferredFrom);
    const others = [...this.#holds.values()].filter((other) => other.name === name && alive(other));
    const facts = { name, token, mode, permits: hold.permits, permitLimit: hold.permitLimit, slots: hold.slots };
    const tokens = () => others.map((other) => `${other.token} (${other.mode})`).join(", ");
    const fits = fitsBeside(facts, others, this.limits.holdersPerLockMax);
    ensure(fits, () => `${name} was granted to ${token} (${mode}) beside ${tokens()}`);
    const taken = others.flatMap(({ slots }) => slots);
    ensure(!hold.slots.some((slot) => taken.includes(slot)), () => `${name}: ${token} got a slot that is taken`);
    const delayedMs = (this.#delays.get(name) ?? 0) - nowMs;
    ensure(delayedMs <= 0, () => `${name} was granted to ${token} ${delayedMs} ms before its lock delay is over`);
    if (ticketId !== "") this.#checkTurn(event, before, after);
    else {
      const ahead = this.#living(name, before, after);
      ensure(ahead.length === 0, () => `${name} was granted to ${token} past ${ahead.join(", ")}, which came first`);
    }
    this.#holds.set(token, facts);
  }

  #living(name: string, before: Snapshot, after: Snapshot): string[] {
    return this.#queue(name).filter((ticketId) => {
      const serial = Number(ticketId.slice(1));
      const snap = before.tickets.get(serial) ?? after.tickets.get(serial);
      return snap !== undefined && after.leases.get(snap.leaseId)?.dead === false;
    });
  }

  #checkTurn({ name, token, ticketId, transferredFrom }: Granted, before: Snapshot, after: Snapshot): void {
    const queue = this.#queue(name);
    const living = this.#living(name, before, after);
    const index = queue.indexOf(ticketId);
    ensure(index >= 0, () => `${ticketId} was granted ${name} and had not waited for it`);
    const ahead = living.filter((other) => queue.indexOf(other) < index);
    const inTurn = ahead.length === 0 || transferredFrom !== 0;
    ensure(inTurn, () => `token ${token} of ${name} was granted to ${ticketId} past ${ahead.join(", ")}`);
    queue.splice(index, 1);
  }

  #ended(event: Extract<LockEvent, { kind: "holdEnded" }>, before: Snapshot, after: Snapshot, nowMs: number): void {
    const { name, token, end } = event;
    const hold = this.#holds.get(token);
    if (end === "transferred" && hold === undefined) return; // told with the grant
    ensure(hold?.name === name, () => `token ${token} of ${name} ended (${end}) and had not held it`);
    this.#holds.delete(token);
    const snap: HoldSnap | undefined = before.holds.get(token) ?? after.holds.get(token);
    if (snap === undefined || snap.lockDelayMs === 0 || !delaying.includes(end)) return;
    if (end === "forced" && !this.#unconfirmed) return;
    // Of a lease that died it counts from its death, at the latest.
    if (end === "expired" && before.leases.get(snap.leaseId)?.dead) return;
    this.#delays.set(name, Math.max(this.#delays.get(name) ?? 0, nowMs + snap.lockDelayMs));
  }

  #compare(after: Snapshot): void {
    const followed = [...this.#holds.keys()].sort((a, b) => a - b).join();
    const is = [...after.holds.keys()].sort((a, b) => a - b).join();
    ensure(followed === is, () => `by the events ${followed} hold, by the state ${is}`);
    for (const [name, queue] of this.#queues) {
      const waiting = [...after.tickets.values()].filter(({ items }) => items.some((item) => item.name === name));
      const [was, now] = [queue.join(), waiting.map(({ serial }) => `T${serial}`).join()];
      ensure(was === now, () => `by the events ${was} wait for ${name}, by the state ${now}`);
    }
  }

  recovered(state: Snapshot, core: Readonly<State>): void {
    this.#holds.clear();
    this.#queues.clear();
    this.#delays.clear();
    this.#timestamp = core.clock.now;
    for (const hold of state.holds.values()) this.#holds.set(hold.token, { ...hold, name: hold.lock });
    for (const { serial, items } of [...state.tickets.values()].sort((a, b) => a.serial - b.serial)) {
      for (const { name } of items) this.#queue(name).push(`T${serial}`);
    }
    for (const [name, { delay }] of core.locks) if (delay !== null) this.#delays.set(name, delay.untilMs);
  }
}

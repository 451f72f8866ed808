/**
 * Works off what is due, a bounded slice at a time.
 *
 * What counts as due is what was due at `asOfMs`, a moment that may have passed a while ago: input that had arrived by
 * then is stepped first. Whatever begins now, a grant or a detachment, is counted from `nowMs`.
 *
 * What is to be granted comes first: a poll whose time is over meanwhile must not miss a grant that only the budget of a
 * step held back.
 */
import { timeOut } from "./acquire.js";
import { endDelay } from "./holders.js";
import { dueEnd, endHold } from "./holds.js";
import { collect, endLease } from "./lease-end.js";
import { forgetRequest } from "./requests.js";
import { isUnsettled, settle } from "./settle.js";
import type { Lease, State, Ticket } from "./state.js";
import { answer, detachTicket, removeTicket, waiting } from "./tickets.js";
import type { Effects } from "./types.js";

export function expire(state: State, fx: Effects, asOfMs: number, nowMs: number): void {
  let budget = state.limits.expirySliceMax;
  let grants = settle(state, fx, nowMs, state.limits.expirySliceMax);
  for (const lease of state.collecting) {
    if (budget <= 0 || isUnsettled(state)) return;
    budget = collect(state, fx, lease, nowMs, budget);
    grants = settle(state, fx, nowMs, grants);
  }
  for (let item = state.deadlines.peek(); item !== undefined && item.dueMs <= asOfMs; item = state.deadlines.peek()) {
    if (budget <= 0 || isUnsettled(state)) return;
    budget--;
    if (item.kind === "lease") budget = expireLease(state, fx, item, asOfMs, nowMs, budget);
    else if (item.kind === "ticket") expireTicket(state, fx, item, asOfMs, nowMs);
    else if (item.kind === "hold") endHold(state, fx, item, dueEnd(item), nowMs);
    else if (item.kind === "delay") endDelay(state, fx, item.lock);
    else forgetRequest(state, fx, item);
    grants = settle(state, fx, nowMs, grants);
  }
}

function expireLease(state: State, fx: Effects, lease: Lease, asOfMs: number, nowMs: number, budget: number): number {
  if (lease.deadlineMs <= asOfMs) {
    return endLease(state, fx, lease, "expired", lease.ttlUntilMs > asOfMs, nowMs, budget);
  }
  state.deadlines.set(lease, lease.deadlineMs); // it was renewed since it was put there
  return budget;
}

function expireTicket(state: State, fx: Effects, ticket: Ticket, asOfMs: number, nowMs: number): void {
  if (ticket.route === null) removeTicket(state, fx, ticket, null, nowMs);
  else if (ticket.waitUntilMs <= asOfMs) timeOut(state, fx, ticket, nowMs);
  else {
    answer(fx, ticket, waiting(state, ticket, nowMs)); // this poll is over, the wait is not
    detachTicket(state, ticket, nowMs);
  }
}

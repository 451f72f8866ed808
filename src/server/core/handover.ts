/**
 * What a holder does with its hold: releases it, hands it on, downgrades it, replaces its metadata.
 *
 * All four are for the holder. A grant that was made on a session can be given up or changed by that session only: its
 * client would not know of anybody else's doing, and would go on believing.
 */
import type { Caller } from "./acquire.js";
import { delayUntilMs, fitsBeside, isAlive, touch } from "./holders.js";
import { endDeadHolds, endHold, factsOf } from "./holds.js";
import { denied, mayUse } from "./principals.js";
import { placeAt } from "./queue.js";
import { putHold } from "./records.js";
import { storeOutcome } from "./session-log.js";
import { grantTicket } from "./settle.js";
import type { Hold, SessionOutcome, State, Ticket } from "./state.js";
import type { CoreEvent, Downgrade, Effects, Outcome, Refusal, Release, SetMetadata, Transfer } from "./types.js";

/** A hold that counts, by the name of its lock and its token. */
export function findHold(state: State, name: string, token: number): Hold | undefined {
  const hold = state.holds.get(token);
  return hold === undefined || hold.lock.name !== name || hold.lease.dead !== null ? undefined : hold;
}

type Rpc = Extract<CoreEvent, { kind: "staleToken" }>["rpc"];

/** The caller's hold, or why this is not for it. One that is being taken away can be released, and nothing else. */
function holdOf(
  state: State,
  fx: Effects,
  request: Release | Transfer | Downgrade | SetMetadata,
  caller: Caller,
): Hold | Refusal {
  const { kind, name, token } = request;
  const hold = findHold(state, name, token);
  if (hold === undefined || (hold.revoking !== null && kind !== "release")) {
    const rpc: Rpc = kind;
    fx.events.push({ kind: "staleToken", rpc });
    const why = hold === undefined ? "it was released, lost, or never granted" : "it is being taken away";
    return { kind: "refused", reason: "STALE_TOKEN", message: `token ${token} does not hold this lock: ${why}` };
  }
  if (!mayUse(caller.principal, hold.lease.principal)) return denied("grant");
  if (hold.seq > 0 && hold.lease.session !== caller.session) {
    const does = { release: "released", transfer: "transferred", downgrade: "downgraded", setMetadata: "changed" }[
      kind
    ];
    return { kind: "refused", reason: "INVALID", message: `this grant can only be ${does} by its own session` };
  }
  return hold;
}

/** So that the command, sent again, has no second effect. */
function remember(state: State, caller: Caller, outcome: SessionOutcome): void {
  if (caller.session !== null) storeOutcome(state, caller.session, caller.seq, outcome);
}

export function release(state: State, fx: Effects, request: Release, caller: Caller, nowMs: number): Outcome {
  const hold = holdOf(state, fx, request, caller);
  if (hold.kind === "refused") return hold;
  if (hold.revoking === null) endHold(state, fx, hold, "released", nowMs);
  else endHold(state, fx, hold, "forced", nowMs, true);
  remember(state, caller, { kind: "released" });
  return { kind: "released" };
}

/** In one step the hold ends and the ticket is granted, past whoever stands before it. */
export function transfer(state: State, fx: Effects, request: Transfer, caller: Caller, nowMs: number): Outcome {
  const hold = holdOf(state, fx, request, caller);
  if (hold.kind === "refused") return hold;
  if (state.halted !== "") return { kind: "refused", reason: "STORE_DOWN", message: state.halted };
  const ticket = successor(state, hold, request.ticketId, nowMs);
  if (ticket.kind === "refused") return ticket;
  if (state.collecting.size > 0) endDeadHolds(state, fx, hold.lock, nowMs);
  endHold(state, fx, hold, "transferred", nowMs);
  const { token } = grantTicket(state, fx, ticket, hold.token, nowMs);
  remember(state, caller, { kind: "transferred", token });
  return { kind: "transferred", token };
}

function successor(state: State, hold: Hold, ticketId: string, nowMs: number): Ticket | Refusal {
  const { lock } = hold;
  const ticket = /^T\d+$/.test(ticketId) ? state.tickets.get(Number(ticketId.slice(1))) : undefined;
  const place = ticket && placeAt(ticket, lock);
  if (ticket === undefined || place === undefined || ticket.lease.dead !== null) {
    return { kind: "refused", reason: "NOT_WAITING", message: "no such ticket waits for this lock" };
  }
  if (ticket.all) {
    return { kind: "refused", reason: "INVALID", message: `${ticketId} waits for several locks together` };
  }
  if (ticket.route === null) {
    return { kind: "refused", reason: "NOT_WAITING", message: `nobody is there to take the grant of ${ticketId}` };
  }
  const { holdersPerLockMax } = state.limits;
  const free = fitsBeside(lock, place.item, holdersPerLockMax, (other) => other !== hold && isAlive(other));
  if (!free || delayUntilMs(state, lock) > nowMs) {
    return { kind: "refused", reason: "INVALID", message: `the other holders do not let ${ticketId} in` };
  }
  return ticket;
}

/** Turns an exclusive hold into a shared one; shared waiters at the head of the queue come in. */
export function downgrade(state: State, fx: Effects, request: Downgrade, caller: Caller): Outcome {
  const hold = holdOf(state, fx, request, caller);
  if (hold.kind === "refused") return hold;
  if (hold.mode === "semaphore") {
    return { kind: "refused", reason: "INVALID", message: "a hold of a semaphore cannot be downgraded" };
  }
  if (hold.mode === "exclusive") {
    hold.mode = "shared";
    state.held.exclusive--;
    state.held.shared++;
    putHold(state, fx, hold);
    announce(state, fx, hold, "downgraded");
    touch(state, hold.lock);
  }
  remember(state, caller, { kind: "downgraded" });
  return { kind: "downgraded" };
}

export function setMetadata(state: State, fx: Effects, request: SetMetadata, caller: Caller): Outcome {
  const hold = holdOf(state, fx, request, caller);
  if (hold.kind === "refused") return hold;
  hold.metadata = request.metadata;
  putHold(state, fx, hold);
  announce(state, fx, hold, "updated");
  remember(state, caller, { kind: "metadataSet" });
  return { kind: "metadataSet" };
}

/** Something about a hold has changed: for the watchers. */
export function announce(state: State, fx: Effects, hold: Hold, kind: "downgraded" | "updated" | "revoking"): void {
  const { token, lock } = hold;
  const timestamp = state.clock.take(1);
  fx.events.push({ kind, name: lock.name, timestamp, token, message: hold.revoking ?? "", hold: factsOf(hold) });
}

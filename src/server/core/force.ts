/**
 * A lock is taken away by an administrator.
 *
 * The hold is marked as revoking, and its holder is told. It ends when the holder confirms by releasing, or when the last
 * promise that was made to it has run out. That is the remaining time of its lease at the moment of the mark: renewals
 * go on, but whatever they promise is told after the end. On a session that is so because answers come in order; so no
 * renewal of the lease may be answered ahead of the batch that has the mark. A unary holder learns of the end from the
 * answer to its next renewal itself.
 *
 * With `now` the hold ends at once, and its holder is told without being asked.
 */
import { announce, findHold } from "./handover.js";
import { isAlive } from "./holders.js";
import { endHold, schedule, tellHolder } from "./holds.js";
import { putHold } from "./records.js";
import type { Hold, State } from "./state.js";
import type { Effects, ForceRelease, Outcome } from "./types.js";

export function forceRelease(state: State, fx: Effects, request: ForceRelease, nowMs: number): Outcome {
  const holds = targets(state, request);
  if (holds === undefined) {
    const message = `token ${request.token} does not hold this lock: it was released, lost, or never granted`;
    return { kind: "refused", reason: "STALE_TOKEN", message };
  }
  const ended: number[] = [];
  const revoking: number[] = [];
  let withinMs = 0;
  for (const hold of holds) {
    if (request.now) {
      hold.revoking = request.message;
      endHold(state, fx, hold, "forced", nowMs);
      ended.push(hold.token);
      continue;
    }
    if (hold.revoking === null) beginRevoking(state, fx, hold, request.message);
    revoking.push(hold.token);
    withinMs = Math.max(withinMs, Math.ceil(hold.revokingUntilMs - nowMs));
  }
  return { kind: "forced", ended, revoking, withinMs: Math.max(0, withinMs) };
}

/** The hold that was named, or all of the lock; undefined: that one is not there. */
function targets(state: State, { name, token }: ForceRelease): Hold[] | undefined {
  if (token !== 0) {
    const hold = findHold(state, name, token);
    return hold && [hold];
  }
  const holds: Hold[] = [];
  for (let hold = state.locks.get(name)?.first ?? null; hold !== null; hold = hold.next) {
    if (isAlive(hold)) holds.push(hold);
  }
  return holds;
}

function beginRevoking(state: State, fx: Effects, hold: Hold, message: string): void {
  const { lease } = hold;
  markRevoking(hold, message);
  schedule(state, hold);
  lease.batch = state.batch;
  putHold(state, fx, hold);
  announce(state, fx, hold, "revoking");
  tellHolder(fx, hold, "forced", message, true);
}

/** Until when it may last is what its lease has left now. */
export function markRevoking(hold: Hold, message: string): void {
  const { lease } = hold;
  hold.revoking = message;
  hold.revokingUntilMs = lease.deadlineMs;
  if (hold.seq > 0) return;
  lease.revoking ??= new Set();
  lease.revoking.add(hold);
}

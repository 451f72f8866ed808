/** What is done to a hold: released, handed on, turned into a shared one, described anew, taken away. */
import type { Downgrade, ForceRelease, Release, SetMetadata, Transfer } from "../../../src/server/core/types.js";
import type { Asker } from "./acquiring.js";
import type { Meaning } from "./meaning.js";
import { denied, mayUse } from "./owning.js";
import { deadlineMs, type ModelHold, type ModelLease, untilThen } from "./state.js";
import { refused, type Step } from "./step.js";

type HoldRequest = Release | Transfer | Downgrade | SetMetadata;

/** The hold, or why this caller may not. What is being taken away can only be released. */
function heldBy(step: Step, request: HoldRequest, asker: Asker): ModelHold | Meaning {
  const hold = step.hold(request.token);
  if (hold === undefined || hold.name !== request.name) return refused("STALE_TOKEN");
  if (request.kind !== "release" && hold.revoking !== null) return refused("STALE_TOKEN");
  const { sessionId, seq, leaseId } = hold.grant;
  if (!mayUse(asker.principal, step.lease(leaseId)?.principal ?? "")) return denied;
  return seq > 0 && sessionId !== asker.session?.id ? refused("INVALID") : hold;
}

export function release(step: Step, request: Release, asker: Asker): Meaning {
  const hold = heldBy(step, request, asker);
  if ("kind" in hold) return hold;
  if (hold.revoking === null) step.endHold(hold, "released", false);
  else step.endHold(hold, "forced", false, hold.revoking.message);
  if (asker.session !== null) step.remember(asker.session.id, asker.seq, { kind: "released" });
  return { kind: "released" };
}

export function transfer(step: Step, request: Transfer, asker: Asker): Meaning {
  const hold = heldBy(step, request, asker);
  if ("kind" in hold) return hold;
  const ticket = step.queueOf(request.name).find(({ serial }) => `T${serial}` === request.ticketId);
  if (ticket === undefined) return refused("NOT_WAITING");
  if (ticket.all) return refused("INVALID");
  if (ticket.route === null) return refused("NOT_WAITING");
  if (!ticket.items.every((item) => step.fits(item, [hold]))) return refused("INVALID");
  step.endHold(hold, "transferred", false);
  step.grantTicket(ticket, hold.token);
  const token = step.state.token;
  if (asker.session !== null) step.remember(asker.session.id, asker.seq, { kind: "transferred", token });
  return { kind: "transferred", token };
}

export function downgrade(step: Step, request: Downgrade, asker: Asker): Meaning {
  const hold = heldBy(step, request, asker);
  if ("kind" in hold) return hold;
  if (hold.mode === "semaphore") return refused("INVALID");
  if (hold.mode === "exclusive") {
    hold.mode = "shared";
    change(step, "downgraded", hold, "");
    step.touch(hold.name);
  }
  if (asker.session !== null) step.remember(asker.session.id, asker.seq, { kind: "downgraded" });
  return { kind: "downgraded" };
}

export function setMetadata(step: Step, request: SetMetadata, asker: Asker): Meaning {
  const hold = heldBy(step, request, asker);
  if ("kind" in hold) return hold;
  change(step, "updated", hold, "");
  if (asker.session !== null) step.remember(asker.session.id, asker.seq, { kind: "metadataSet" });
  return { kind: "metadataSet" };
}

function change(step: Step, kind: string, { name, token }: ModelHold, message: string): void {
  step.happen(kind, name, step.state.clock.take(), { token, message });
}

export function forceRelease(step: Step, { name, token, message, now }: ForceRelease): Meaning {
  const holds = step.holdsOf(name).filter((hold) => token === 0 || hold.token === token);
  if (holds.length === 0 && token !== 0) return refused("STALE_TOKEN");
  const tokens = holds.map((hold) => hold.token);
  for (const hold of holds) {
    if (now) {
      step.tellHoldEnd(hold, "forced", false, message);
      step.endHold(hold, "forced", true, message);
    } else if (hold.revoking === null) {
      const lease = step.lease(hold.grant.leaseId) as ModelLease;
      hold.revoking = { untilMs: deadlineMs(lease), message };
      step.tellHoldEnd(hold, "forced", true, message);
      change(step, "revoking", hold, message);
    }
  }
  if (now) return { kind: "forced", ended: tokens, revoking: [], withinMs: 0 };
  const withinMs = Math.max(0, ...holds.map(({ revoking }) => untilThen(revoking?.untilMs ?? 0, step.nowMs)));
  return { kind: "forced", ended: [], revoking: tokens, withinMs };
}

/** Its maximum hold is over, or its time to confirm. */
export function endByTime(step: Step, hold: ModelHold, end: "max_hold" | "forced"): void {
  const message = end === "forced" ? (hold.revoking?.message ?? "") : "";
  step.tellHoldEnd(hold, end, false, message);
  step.endHold(hold, end, true, message);
}

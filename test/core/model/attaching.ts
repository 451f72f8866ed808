/** Sessions: attached, resumed, detached. */
import { type Attach, anybody } from "../../../src/server/core/types.js";
import type { Meaning } from "./meaning.js";
import { denied, mayUse } from "./owning.js";
import type { ModelSession } from "./state.js";
import { inOrder, placesOf, refused, type Step } from "./step.js";

export function attach(step: Step, command: Attach): Meaning {
  const { state } = step;
  if (command.clusterId !== "" && command.clusterId !== state.clusterId) return refused("CLUSTER_MISMATCH");
  if (command.clusterId !== "" && command.highestToken > state.token) {
    state.halted = true;
    return refused("STORE_DOWN");
  }
  const { epoch, route, principal = anybody } = command;
  if (command.sessionId === "") {
    if (state.sessions.length >= state.limits.sessionsMax) return refused("LIMIT");
    const id = command.newSessionId;
    state.sessions.push({ id, principal: principal.name, epoch, route, ackedBelow: 0, unacked: new Map() });
    return { kind: "welcome", sessionId: id, epoch, resumed: false, lost: [] };
  }
  const session = step.session(command.sessionId);
  if (session === undefined) return refused("UNKNOWN_SESSION");
  if (!mayUse(principal, session.principal)) return denied;
  if (epoch <= session.epoch) return refused("SESSION_REPLACED");
  step.say(session.route, { kind: "replaced" });
  session.epoch = epoch;
  session.principal ||= principal.name;
  session.route = route;
  return { kind: "welcome", sessionId: session.id, epoch, resumed: true, lost: settle(step, session, command) };
}

/** What is claimed is kept, what is outstanding will be asked for, what is neither goes. Returns the lost claims. */
function settle(step: Step, session: ModelSession, command: Attach): number[] {
  const { state } = step;
  for (const ticket of state.tickets.filter(({ sessionId }) => sessionId === session.id)) step.detach(ticket);
  for (const seq of command.abandoned) {
    const lease = state.leases.find((one) => one.sessionId === session.id && one.seq === seq);
    if (lease !== undefined) step.endLease(lease, "expired");
  }
  const holds = state.holds.filter(({ grant }) => grant.sessionId === session.id && grant.seq > 0);
  const lost = command.claims.filter((token) => !holds.some((hold) => hold.token === token));
  const gone: { rank: number; end: () => void }[] = [];
  for (const ticket of state.tickets.filter(({ sessionId }) => sessionId === session.id)) {
    if (!command.outstanding.includes(ticket.seq))
      gone.push({ rank: step.hints.rank(["dequeued"], placesOf(ticket)), end: () => step.dequeue(ticket) });
  }
  for (const hold of holds) {
    const { grant, token, revoking } = hold;
    const claimed = command.claims.includes(token);
    const effect = session.unacked.get(grant.seq);
    const whole = step.grantOutcome(grant, step.nowMs).kind === "grant";
    const awaited = effect?.kind === "grant" && command.outstanding.includes(grant.seq) && whole;
    const rank = step.hints.rank(["holdEnded"], [`${token} undelivered`]);
    if (!claimed && !awaited) gone.push({ rank, end: () => step.endHold(hold, "undelivered", false) });
    else if (claimed && revoking !== null) step.tellHoldEnd(hold, "forced", true, revoking.message);
  }
  for (const { end } of inOrder(gone)) end();
  for (const [seq, { kind }] of session.unacked) {
    if (!command.outstanding.includes(seq) && kind !== "ticket") session.unacked.delete(seq);
  }
  return lost;
}

export function detach(step: Step, sessionId: string, epoch: number): void {
  const session = step.session(sessionId);
  if (session === undefined || session.epoch !== epoch || session.route === null) return;
  session.route = null;
  for (const ticket of step.state.tickets) if (ticket.sessionId === sessionId) step.detach(ticket);
  step.dropSessionIfOver(session);
}

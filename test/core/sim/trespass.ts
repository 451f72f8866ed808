/** What one principal tries with the leases, grants, requests and sessions of others: it must come to nothing. */
import type { Lease, State } from "../../../src/server/core/state.js";
import type { Acquire, Attach, HolderSpec, Principal, Request } from "../../../src/server/core/types.js";
import { drawAcquire, type Habits } from "./draw.js";
import { SimStream } from "./network.js";

interface Victim {
  readonly lease: Lease;
  readonly by: Principal;
}

/** A lease, and somebody who is not its principal; undefined: there is none. */
export function drawVictim(state: Readonly<State>, { random }: Habits, all: readonly Principal[]): Victim | undefined {
  const leases = [...state.leases.values()].filter(({ principal }) => principal !== "");
  if (leases.length === 0) return undefined;
  const lease = random.pick(leases);
  const others = all.filter(({ name }) => name !== "" && name !== lease.principal);
  return others.length === 0 ? undefined : { lease, by: random.pick(others) };
}

/** A call that names what is not the caller's. */
export function drawTrespass({ lease }: Victim, habits: Habits, ticketId: string): Request {
  const { random } = habits;
  const leaseId = lease.id;
  const holds = [...lease.holds];
  const hold = holds.length === 0 ? undefined : random.pick(holds);
  if (hold !== undefined && random.chance(0.5)) {
    const held = { name: hold.lock.name, token: hold.token };
    return random.pick<Request>([
      { kind: "release", ...held },
      { kind: "transfer", ...held, ticketId },
      { kind: "downgrade", ...held },
      { kind: "setMetadata", ...held, metadata: "bWluZQ==" },
    ]);
  }
  const entries = [...holds, ...lease.tickets].filter(({ requestId }) => requestId !== "");
  const requestId = entries.length === 0 ? "" : random.pick(entries).requestId;
  const named = lease.own ? "" : leaseId;
  const holder: HolderSpec = { kind: "lease", leaseId };
  const acquire: Acquire = { ...drawAcquire(habits, []), holder, waitMs: 0, requestId };
  const requests: Request[] = [
    { kind: "renewLease", leaseId, progress: random.chance(0.5) },
    { kind: "revokeLease", lease: { kind: "lease", leaseId }, expired: random.chance(0.5) },
    { kind: "getLease", leaseId },
    acquire,
  ];
  if (requestId !== "")
    requests.push({ kind: "cancelAcquire", target: { kind: "request", requestId, leaseId: named } });
  return random.pick(requests);
}

/** A stream that says to go on with somebody else's session. */
export function trespassOn({ lease, by }: Victim, newSessionId: string): Attach | undefined {
  const { session } = lease;
  if (session === null) return undefined;
  const epoch = session.epoch + 1;
  return {
    kind: "attach",
    sessionId: session.id,
    newSessionId,
    epoch,
    claims: [],
    outstanding: [],
    abandoned: [],
    clusterId: "",
    highestToken: 0,
    route: new SimStream(epoch),
    principal: by,
    observed: 0,
  };
}

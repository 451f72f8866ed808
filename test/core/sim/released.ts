/** Judges what leaves the server, over all its incarnations: this is what clients have really been told. */
import type { State } from "../../../src/server/core/state.js";
import type { Command, Outcome, Reply, Route } from "../../../src/server/core/types.js";
import { acquireIdentity, cancelTarget, requestsOf } from "./explain.js";
import { type Snapshot, sessionIdentity } from "./snapshot.js";
import { ensure } from "./violation.js";

export class ReleaseChecker {
  /** The highest token and timestamp that anybody was told. */
  token = 0;
  timestamp = 0;
  /** By Acquire: the first token that its client was told. */
  readonly tokenOf = new Map<string, number>();
  #ticked = 0;
  readonly #cancelled = new Set<string>();
  /** By release: which command of which session, or which call. */
  readonly #releasedBy = new Map<number, string>();
  /** By the command that asks. */
  readonly #asked = new Map<string, { acquires: string; cancels: string; releases: number }>();
  readonly #calls = new Map<Route, string>();
  readonly #streams = new Map<Route, string>();
  #callCount = 0;

  /** Notes who asks for what. */
  stepping(command: Command): void {
    if (command.kind === "call") this.#calls.set(command.route, `call ${++this.#callCount}`);
    for (const { request, sessionId, seq, principal } of requestsOf(command)) {
      const asker = command.kind === "call" ? `call ${this.#callCount}` : sessionIdentity(sessionId, seq);
      this.#asked.set(asker, {
        acquires: acquireIdentity(request, sessionId, seq, principal),
        cancels: cancelTarget(request, sessionId, principal),
        releases: request.kind === "release" || request.kind === "transfer" ? request.token : 0,
      });
    }
  }

  released(replies: readonly Reply[], timestamp: number, journal: ReadonlyMap<string, string>): void {
    if (replies.length === 0) return;
    const [, ceiling] = JSON.parse(journal.get("!") ?? "[0,0]") as [number, number];
    ensure(timestamp <= ceiling, () => `timestamp ${timestamp} goes out above the durable ceiling ${ceiling}`);
    this.timestamp = Math.max(this.timestamp, timestamp);
    for (const reply of replies) {
      if (reply.kind !== "outcome") continue;
      const { route, outcome } = reply;
      if (outcome.kind === "welcome") this.#streams.set(route, outcome.sessionId);
      const asker =
        route.kind === "call" ? this.#calls.get(route) : sessionIdentity(this.#streams.get(route) ?? "", reply.seq);
      this.#outcome(asker ?? "", outcome);
      if (route.kind === "call") this.#calls.delete(route);
    }
  }

  #outcome(asker: string, outcome: Outcome): void {
    const asked = this.#asked.get(asker);
    if (outcome.kind === "grant") this.#granted(asked?.acquires ?? "", outcome);
    else if (outcome.kind === "ticks") {
      ensure(outcome.first > this.#ticked, () => `tick ${outcome.first} was given out again`);
      this.#ticked = outcome.last;
      this.timestamp = Math.max(this.timestamp, outcome.last);
    } else if (outcome.kind === "cancelled" && asked !== undefined) this.#cancelled.add(asked.cancels);
    else if ((outcome.kind === "released" || outcome.kind === "transferred") && asked !== undefined) {
      const by = this.#releasedBy.get(asked.releases);
      ensure(by === undefined || by === asker, () => `token ${asked.releases} was released by ${by} and ${asker}`);
      this.#releasedBy.set(asked.releases, asker);
      if (outcome.kind === "transferred") this.token = Math.max(this.token, outcome.token);
    }
  }

  #granted(identity: string, { grants, timestamp }: Outcome & { kind: "grant" }): void {
    const token = grants[0]?.token ?? 0;
    const last = grants.at(-1)?.token ?? 0;
    const rising = grants.every((grant, index) => index === 0 || grant.token > (grants[index - 1]?.token ?? 0));
    ensure(rising && token > 0, () => `${identity} was told tokens out of order: ${JSON.stringify(grants)}`);
    const earlier = this.tokenOf.get(identity);
    ensure(earlier === undefined || earlier === token, () => `${identity} was told ${earlier} and then ${token}`);
    ensure(!this.#cancelled.has(identity), () => `${identity} was cancelled, and then told token ${token}`);
    if (identity !== "") this.tokenOf.set(identity, token);
    // A lower one: told again, or told late, by a call or a session that has come back for it.
    if (last <= this.token) return;
    this.token = last;
    this.timestamp = Math.max(this.timestamp, timestamp);
  }

  /** What was cancelled neither holds nor waits. */
  checkCancelled(state: Snapshot): void {
    for (const { identity, token, leaseId } of state.holds.values()) {
      if (identity === "" || state.leases.get(leaseId)?.dead) continue;
      ensure(!this.#cancelled.has(identity), () => `${identity} was cancelled and holds ${token}`);
    }
    for (const { identity, serial } of state.tickets.values()) {
      ensure(!this.#cancelled.has(identity), () => `${identity} was cancelled and waits as T${serial}`);
    }
  }

  recovered(): void {
    this.#calls.clear();
    this.#streams.clear();
  }
}

/** A renewal that goes out at once: all that it rests on is on the disk already. */
export function checkEarlyRenewals(
  command: Command,
  replies: readonly Reply[],
  state: Readonly<State>,
  journal: ReadonlyMap<string, string>,
): void {
  for (const reply of replies) {
    const leaseId = renewedLease(command, reply, state);
    const lease = leaseId === undefined ? undefined : state.leases.get(leaseId);
    if (lease === undefined) continue;
    const { incarnation } = state;
    const record = JSON.parse(journal.get(`l/${leaseId}`) ?? "[]") as unknown[];
    const more = record[9] as unknown[] | undefined;
    ensure(record[8] === "", () => `lease ${leaseId} is renewed before it is on the disk`);
    ensure(record[7] === incarnation, () => `lease ${leaseId} is renewed, and the disk does not say so`);
    const progressed = lease.progressEveryMs === 0 || lease.progressedIn !== incarnation || more?.[1] === incarnation;
    ensure(progressed, () => `progress is confirmed for lease ${leaseId}, and the disk does not say so`);
    for (const { token, revoking } of lease.holds) {
      if (revoking === null) continue;
      const hold = JSON.parse(journal.get(`h/${token}`) ?? "[]") as unknown[];
      const marked = (hold[8] as unknown[] | undefined)?.[6] === revoking;
      ensure(marked, () => `lease ${leaseId} is renewed before the disk says that ${token} is taken away`);
    }
  }
}

function renewedLease(command: Command, reply: Reply, state: Readonly<State>): string | undefined {
  if (reply.kind === "renewal" && command.kind === "frame") {
    return state.sessions.get(command.sessionId)?.leases.get(reply.leaseSeq)?.id;
  }
  if (reply.kind !== "outcome" || reply.outcome.kind !== "renewed" || command.kind !== "call") return undefined;
  return command.request.kind === "renewLease" ? command.request.leaseId : undefined;
}

/** A client that speaks plain calls: leases by id, Acquires by request id, long polls, retries and duplicates. */
import type { Acquire, HolderSpec, LockItem, Outcome, Principal, Request } from "../../../src/server/core/types.js";
import type { Belief } from "./belief.js";
import { drawAcquire, type Habits } from "./draw.js";
import { SimCall } from "./network.js";

export interface CallWorld extends Habits {
  readonly nowMs: number;
  /** One that the principal has not used yet, but others may have. */
  plainId(principal: Principal): string;
  freshId(): string;
  someTicket(name: string): string;
  call(call: SimCall): void;
}

interface Attempt {
  readonly request: Acquire;
  /** Neither answered for good nor given up. */
  open: boolean;
}

/**
 * Each grant has its own end of belief. Only the answer to RenewLease moves it, since only that tells which grants are
 * being taken away.
 */
interface Holding extends Belief {
  readonly leaseId: string;
  readonly maxUntilMs: number;
  untilMs: number;
}

interface Lease {
  untilMs: number;
  readonly progress: boolean;
  readonly hung: boolean;
}

export class UnaryClient {
  readonly #leases = new Map<string, Lease>();
  readonly #holds = new Map<number, Holding>();
  /** Taken away, and not yet confirmed. */
  readonly #takenAway = new Map<number, Holding>();
  readonly #attempts: Attempt[] = [];

  constructor(
    private readonly world: CallWorld,
    private readonly principal: Principal,
  ) {}

  believed(): Belief[] {
    return [...this.#holds.values()].filter((hold) => this.#believes(hold));
  }

  #believes({ untilMs, maxUntilMs }: Holding): boolean {
    return this.world.nowMs < Math.min(untilMs, maxUntilMs);
  }

  act(): void {
    const { random, nowMs } = this.world;
    for (const [id, { untilMs }] of this.#leases) if (nowMs >= untilMs + 500) this.#leaseGone(id);
    this.#letGo();
    const holds = [...this.#holds.values()];
    const takenAway = [...this.#takenAway.values()];
    const leaseIds = [...this.#leases.keys()];
    const kind = random.between(1, 100);
    if (takenAway.length > 0 && random.chance(0.2)) this.#confirm(random.pick(takenAway));
    else if (kind <= 9 && holds.length > 0) this.#release(random.pick(holds));
    else if (kind <= 14 && holds.length > 0) this.#transfer(random.pick(holds));
    else if (kind <= 18 && holds.length > 0)
      this.#downgrade(holds.find(({ mode }) => mode === "exclusive") ?? random.pick(holds));
    else if (kind <= 38 && leaseIds.length > 0) this.#renew(random.pick(leaseIds));
    else if (kind <= 42 && leaseIds.length < 3) this.#createLease();
    else if (kind === 43 && leaseIds.length > 0) this.#revoke(random.pick(leaseIds));
    else if (kind >= 44 && kind <= 45) this.#cancel();
    else if (kind <= 75 && this.#attempts.length > 0) this.#retry();
    else if (kind >= 76 && kind <= 79) this.#lesser(kind, holds, leaseIds);
    else if (this.#attempts.length < 4) this.#acquire(leaseIds);
  }

  /** What has lapsed by the client's own clock does not come back. */
  #letGo(): void {
    for (const [token, hold] of this.#holds) if (!this.#believes(hold)) this.#holds.delete(token);
  }

  /** What leaves the client's beliefs alone. */
  #lesser(kind: number, holds: readonly Holding[], leaseIds: readonly string[]): void {
    const { random, lockNames } = this.world;
    const name = holds[0]?.name ?? random.pick(lockNames);
    const token = holds[0]?.token ?? random.between(1, 20);
    const ignore = () => undefined;
    if (kind === 76) this.#send({ kind: "tick", observed: 0, count: random.between(1, 5) }, ignore);
    else if (kind === 77) this.#send({ kind: "listLeases", after: "", limit: 3 }, ignore);
    else if (kind === 78) this.#send({ kind: "setMetadata", name, token, metadata: "dmFsdWU=" }, ignore);
    else if (random.chance(0.3)) this.#send({ kind: "topLocks", limit: 3, wallMs: 0 }, ignore);
    else if (random.chance(0.5)) this.#send({ kind: "validate", name, token }, ignore);
    else if (leaseIds.length > 0) this.#send({ kind: "getLease", leaseId: random.pick(leaseIds) }, ignore);
  }

  #send(request: Request, onOutcome: (outcome: Outcome, sentMs: number) => void): void {
    this.world.call(new SimCall(request, this.world.nowMs, onOutcome, this.principal));
  }

  #believe(leaseId: string, untilMs: number, progressEveryMs: number): void {
    const lease = this.#leases.get(leaseId);
    if (lease !== undefined) lease.untilMs = Math.max(lease.untilMs, untilMs);
    else {
      const progress = progressEveryMs > 0;
      this.#leases.set(leaseId, { untilMs, progress, hung: progress && this.world.random.chance(0.3) });
    }
  }

  #leaseGone(leaseId: string): void {
    this.#leases.delete(leaseId);
    for (const holds of [this.#holds, this.#takenAway]) {
      for (const [token, hold] of holds) if (hold.leaseId === leaseId) holds.delete(token);
    }
  }

  #createLease(): void {
    const { random } = this.world;
    const ttlMs = random.pick([500, 1_000, 3_000]);
    const progressEveryMs = random.chance(0.25) ? random.pick([500, 1_500]) : 0;
    const request: Request = { kind: "createLease", leaseId: "", ttlMs, owner: "u", metadata: "", progressEveryMs };
    this.#send(request, (outcome, sentMs) => {
      if (outcome.kind !== "lease") return;
      const { leaseId, remainingMs } = outcome.lease;
      this.#believe(leaseId, sentMs + remainingMs, progressEveryMs);
    });
  }

  #renew(leaseId: string): void {
    const { random } = this.world;
    const lease = this.#leases.get(leaseId);
    const progress = lease?.progress ? !lease.hung && random.chance(0.8) : random.chance(0.05);
    this.#send({ kind: "renewLease", leaseId, progress }, (outcome, sentMs) => {
      if (outcome.kind === "refused") this.#leaseGone(leaseId);
      else if (outcome.kind === "renewed" && this.#leases.has(leaseId)) this.#renewed(leaseId, outcome, sentMs);
    });
  }

  #renewed(leaseId: string, outcome: Outcome & { kind: "renewed" }, sentMs: number): void {
    this.#letGo();
    for (const { token } of outcome.revoking) {
      const hold = this.#holds.get(token);
      if (hold !== undefined) this.#takenAway.set(token, hold);
      this.#holds.delete(token);
    }
    const untilMs = sentMs + outcome.remainingMs;
    this.#believe(leaseId, untilMs, 0);
    for (const hold of this.#holds.values()) {
      if (hold.leaseId === leaseId) hold.untilMs = Math.max(hold.untilMs, untilMs);
    }
  }

  #revoke(leaseId: string): void {
    this.#leaseGone(leaseId);
    this.#send({ kind: "revokeLease", lease: { kind: "lease", leaseId }, expired: false }, () => undefined);
  }

  #partWith({ token, leaseId }: Holding): void {
    this.#holds.delete(token);
    if (![...this.#holds.values()].some((hold) => hold.leaseId === leaseId)) this.#leases.delete(leaseId);
  }

  #release(hold: Holding): void {
    this.#partWith(hold);
    this.#send({ kind: "release", name: hold.name, token: hold.token }, () => undefined);
  }

  #confirm({ name, token }: Holding): void {
    this.#takenAway.delete(token);
    this.#send({ kind: "release", name, token }, () => undefined);
  }

  #transfer(hold: Holding): void {
    const { name, token } = hold;
    this.#partWith(hold);
    // Gone for good, whatever the answer: it may be one to the first copy, and a second one is on its way.
    this.#send({ kind: "transfer", name, token, ticketId: this.world.someTicket(name) }, () => undefined);
  }

  #downgrade(hold: Holding): void {
    const { name, token } = hold;
    if (hold.mode === "exclusive") this.#holds.set(token, { ...hold, mode: "shared" });
    this.#send({ kind: "downgrade", name, token }, () => undefined);
  }

  #acquire(leaseIds: readonly string[]): void {
    const { random } = this.world;
    const named = leaseIds.length > 0 && random.chance(0.5);
    const leaseId = named ? random.pick(leaseIds) : "";
    const ttlMs = random.pick([500, 1_000, 3_000]);
    const holder: HolderSpec = named ? { kind: "lease", leaseId } : { kind: "own", leaseId: "", ttlMs };
    const waitMs = random.pick([0, 300, 2_000, 10_000]);
    const requestId = waitMs === 0 && random.chance(0.3) ? "" : this.#freshRequestId();
    const mine = [...this.#holds.values()].filter((hold) => hold.leaseId === leaseId).map(({ token }) => token);
    const attempt = { request: { ...drawAcquire(this.world, mine), holder, waitMs, requestId }, open: true };
    if (requestId !== "") this.#attempts.push(attempt);
    this.#sendAttempt(attempt);
  }

  /** Not all take care that other principals do not use the same ids. */
  #freshRequestId(): string {
    const { world, principal } = this;
    return world.random.chance(0.3) ? world.plainId(principal) : world.freshId();
  }

  /** The call was answered `waiting`, or broke, or takes too long: again, with the same request id. */
  #retry(): void {
    if (this.#attempts.length === 0) return;
    const attempt = this.world.random.pick(this.#attempts);
    if (this.world.random.chance(0.08))
      this.#close(attempt); // gives up without a word
    else this.#sendAttempt(attempt);
  }

  #close(attempt: Attempt): void {
    attempt.open = false;
    const index = this.#attempts.indexOf(attempt);
    if (index >= 0) this.#attempts.splice(index, 1);
  }

  #sendAttempt(attempt: Attempt): void {
    this.#send(attempt.request, (outcome, sentMs) => this.#onAcquire(attempt, outcome, sentMs));
  }

  #onAcquire(attempt: Attempt, outcome: Outcome, sentMs: number): void {
    if (!attempt.open || outcome.kind === "waiting") return;
    this.#close(attempt);
    if (outcome.kind !== "grant") return;
    const { leaseId, leaseRemainingMs, maxHoldRemainingMs } = outcome;
    const { holder, maxHoldMs, items } = attempt.request;
    if (holder.kind === "lease" && !this.#leases.has(leaseId)) return; // it has given that lease up
    const untilMs = sentMs + leaseRemainingMs;
    this.#believe(leaseId, untilMs, 0);
    const maxUntilMs = maxHoldMs === 0 ? Number.POSITIVE_INFINITY : sentMs + maxHoldRemainingMs;
    outcome.grants.forEach(({ name, token, slots }, index) => {
      const { mode, permits, permitLimit } = items[index] as LockItem;
      this.#holds.set(token, { name, token, mode, permits, permitLimit, slots, leaseId, maxUntilMs, untilMs });
    });
  }

  #cancel(): void {
    if (this.#attempts.length === 0) return;
    const attempt = this.world.random.pick(this.#attempts);
    const { requestId, holder } = attempt.request;
    this.#close(attempt);
    const leaseId = holder.kind === "lease" ? holder.leaseId : "";
    this.#send({ kind: "cancelAcquire", target: { kind: "request", requestId, leaseId } }, () => undefined);
  }
}

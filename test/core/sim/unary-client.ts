/** A client that speaks plain calls: leases by id, Acquires by request id, long polls, retries and duplicates. */
import type { Acquire, HolderSpec, Outcome, Request } from "../../../src/server/core/types.js";
import { SimCall } from "./network.js";
import type { Random } from "./random.js";
import type { Believed } from "./session-client.js";

export interface CallWorld {
  readonly random: Random;
  readonly nowMs: number;
  readonly lockNames: readonly string[];
  freshId(): string;
  call(call: SimCall): void;
}

interface Attempt {
  readonly request: Acquire;
  /** Neither answered for good nor given up. */
  open: boolean;
}

interface Holding {
  readonly name: string;
  readonly leaseId: string;
}

export class UnaryClient {
  /** Until when each lease is believed to live. */
  readonly #leases = new Map<string, number>();
  readonly #holds = new Map<number, Holding>();
  readonly #attempts: Attempt[] = [];

  constructor(private readonly world: CallWorld) {}

  believed(): Believed[] {
    const { nowMs } = this.world;
    const believed: Believed[] = [];
    for (const [token, { name, leaseId }] of this.#holds) {
      if (nowMs < (this.#leases.get(leaseId) ?? 0)) believed.push({ name, token });
    }
    return believed;
  }

  act(): void {
    const { random } = this.world;
    for (const [id, until] of this.#leases) if (this.world.nowMs >= until + 3_000) this.#leaseGone(id);
    const tokens = [...this.#holds.keys()];
    const leaseIds = [...this.#leases.keys()];
    const kind = random.between(1, 100);
    if (kind <= 15 && tokens.length > 0) this.#release(random.pick(tokens));
    else if (kind <= 35 && leaseIds.length > 0) this.#renew(random.pick(leaseIds));
    else if (kind <= 38) this.#createLease();
    else if (kind <= 39 && leaseIds.length > 0) this.#revoke(random.pick(leaseIds));
    else if (kind <= 45) this.#cancel();
    else if (kind <= 75) this.#retry();
    else if (kind <= 77) this.#send({ kind: "tick", observed: 0, count: random.between(1, 5) }, () => undefined);
    else if (kind <= 78) this.#send({ kind: "listLeases", after: "", limit: 3 }, () => undefined);
    else if (this.#attempts.length < 4) this.#acquire(leaseIds);
  }

  #send(request: Request, onOutcome: (outcome: Outcome, sentMs: number) => void): void {
    this.world.call(new SimCall(request, this.world.nowMs, onOutcome));
  }

  #believe(leaseId: string, until: number): void {
    this.#leases.set(leaseId, Math.max(until, this.#leases.get(leaseId) ?? 0));
  }

  #leaseGone(leaseId: string): void {
    this.#leases.delete(leaseId);
    for (const [token, hold] of this.#holds) if (hold.leaseId === leaseId) this.#holds.delete(token);
  }

  #createLease(): void {
    const { random } = this.world;
    const ttlMs = random.pick([500, 1_000, 3_000]);
    this.#send({ kind: "createLease", leaseId: "", ttlMs, owner: "u", metadata: "" }, (outcome, sentMs) => {
      if (outcome.kind === "lease") this.#believe(outcome.lease.leaseId, sentMs + outcome.lease.remainingMs);
    });
  }

  #renew(leaseId: string): void {
    this.#send({ kind: "renewLease", leaseId }, (outcome, sentMs) => {
      if (outcome.kind === "refused") this.#leaseGone(leaseId);
      else if (outcome.kind === "renewed" && this.#leases.has(leaseId)) {
        this.#believe(leaseId, sentMs + outcome.remainingMs);
      }
    });
  }

  #revoke(leaseId: string): void {
    this.#leaseGone(leaseId);
    this.#send({ kind: "revokeLease", lease: { kind: "lease", leaseId } }, () => undefined);
  }

  #release(token: number): void {
    const { name, leaseId } = this.#holds.get(token) as Holding;
    this.#holds.delete(token);
    if ([...this.#holds.values()].every((hold) => hold.leaseId !== leaseId)) this.#leases.delete(leaseId);
    this.#send({ kind: "release", name, token }, () => undefined);
  }

  #acquire(leaseIds: readonly string[]): void {
    const { random, lockNames } = this.world;
    const named = leaseIds.length > 0 && random.chance(0.4);
    const ttlMs = random.pick([500, 1_000, 3_000]);
    const holder: HolderSpec = named
      ? { kind: "lease", leaseId: random.pick(leaseIds) }
      : { kind: "own", leaseId: "", ttlMs };
    const waitMs = random.pick([0, 300, 2_000, 10_000]);
    const requestId = waitMs === 0 && random.chance(0.3) ? "" : this.world.freshId();
    const pollMs = random.pick([50, 200, 1_000]);
    const name = random.pick(lockNames);
    const request: Acquire = {
      kind: "acquire",
      name,
      holder,
      waitMs,
      pollMs,
      requestId,
      owner: "u",
      metadata: "",
      wallMs: 0,
    };
    const attempt = { request, open: true };
    if (requestId !== "") this.#attempts.push(attempt);
    this.#sendAttempt(attempt);
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
    const { token, leaseId, leaseRemainingMs } = outcome;
    const named = attempt.request.holder.kind === "lease";
    if (named && !this.#leases.has(leaseId)) return; // it has given that lease up
    this.#believe(leaseId, sentMs + leaseRemainingMs);
    this.#holds.set(token, { name: attempt.request.name, leaseId });
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

/** A client that speaks the session protocol as it is meant, on a network that breaks. */
import type { Acquire, LockItem, Outcome, Principal, Reply, Request } from "../../../src/server/core/types.js";
import type { Belief } from "./belief.js";
import { drawAcquire, type Habits } from "./draw.js";
import { SimStream } from "./network.js";

export interface ClientWorld extends Habits {
  readonly nowMs: number;
  readonly clusterId: string;
  freshId(): string;
  /** The id of somebody who waits for that lock, or perhaps not. */
  someTicket(name: string): string;
  connect(stream: SimStream, client: SessionClient): void;
  somePrincipal(): Principal;
}

interface Pending {
  readonly request: Request;
  /** Where and when it was sent first on the stream that is open: an answer that comes on it counts from then. */
  sentOn: SimStream | null;
  sentMs: number;
  cancelled: boolean;
  /** What counts as gone since the send, and comes back with a definite refusal. */
  readonly parted: Holding | null;
}

interface Holding extends Belief {
  readonly leaseSeq: number;
  /** Until its maximum hold is over. */
  readonly untilMs: number;
}

interface Lease {
  /** Until then it is believed to live. */
  untilMs: number;
  readonly progress: boolean;
  /** The worker hangs: its process renews and never reports. */
  readonly hung: boolean;
}

export class SessionClient {
  #stream: SimStream | null = null;
  #sessionId = "";
  #epoch = 0;
  #nextSeq = 1;
  #highestToken = 0;
  /** Commands that are not answered. */
  readonly #pending = new Map<number, Pending>();
  readonly #leases = new Map<number, Lease>();
  readonly #holds = new Map<number, Holding>();
  /** Taken away, and not yet confirmed. */
  readonly #takenAway = new Map<number, Holding>();

  constructor(
    private readonly world: ClientWorld,
    private principal: Principal,
  ) {}

  /** Grants that the client believes in at this moment. */
  believed(): Belief[] {
    return [...this.#holds.values()].filter((hold) => this.#believes(hold));
  }

  #believes({ leaseSeq, untilMs }: Holding): boolean {
    return this.world.nowMs < Math.min(untilMs, this.#leases.get(leaseSeq)?.untilMs ?? 0);
  }

  act(): void {
    const { random, nowMs } = this.world;
    if (random.chance(0.003)) this.#forgetAll(); // the process dies and another one starts
    for (const [seq, { untilMs }] of this.#leases) {
      if (nowMs >= untilMs + 500 && random.chance(0.8)) this.#leaseGone(seq); // over, by its own clock
    }
    if (this.#stream === null) {
      if (random.chance(0.4)) this.#connect();
      return;
    }
    if (random.chance(0.02)) this.#breakStream();
    else if (this.#welcomed && this.#stream.toServer.length < 4) this.#sendFrame();
  }

  /** The client closes its stream. */
  #breakStream(): void {
    if (this.#stream !== null) this.#stream.clientOpen = false;
    this.#stream = null;
  }

  /** The client learns that its stream is broken. */
  onBroken(stream: SimStream): void {
    stream.clientOpen = false;
    if (stream === this.#stream) this.#stream = null;
  }

  get #welcomed(): boolean {
    return this.#sessionId !== "" && this.#stream?.clientSession === this.#sessionId;
  }

  #forgetAll(): void {
    this.#breakStream();
    this.#sessionId = "";
    this.#epoch = 0;
    this.#nextSeq = 1;
    for (const known of [this.#pending, this.#leases, this.#holds, this.#takenAway]) known.clear();
  }

  #connect(): void {
    const { random } = this.world;
    // Its server has begun to ask who it is.
    if (this.principal.name === "" && random.chance(0.3)) this.principal = this.world.somePrincipal();
    const abandoned = this.#sessionId === "" ? [] : this.#abandon();
    for (const [token, hold] of this.#holds) {
      // Past its own deadline, or (rarely) for no reason at all, it does not claim.
      if (!this.#believes(hold) || random.chance(0.05)) this.#holds.delete(token);
    }
    this.#takenAway.clear(); // not claimed any more, and so confirmed by the resumption
    for (const seq of this.#pending.keys()) if (random.chance(0.03)) this.#pending.delete(seq);
    const claims = [...this.#holds.keys()];
    if (random.chance(0.05)) claims.push(random.between(1, Math.max(1, this.#highestToken))); // a wrong one
    if (this.#sessionId === "") {
      claims.length = 0;
      this.#pending.clear();
    }
    const epoch = ++this.#epoch;
    const stream = new SimStream(epoch);
    this.#stream = stream;
    const clusterId = random.chance(0.8) ? this.world.clusterId : "";
    const highestToken = this.#highestToken;
    const outstanding = [...this.#pending.keys()];
    stream.toServer.push({
      sessionId: this.#sessionId,
      epoch,
      claims: [...new Set(claims)],
      outstanding,
      abandoned,
      clusterId,
      highestToken,
      principal: this.principal,
      observed: 0,
    });
    this.world.connect(stream, this);
  }

  /** A few new commands, a renewal, reports of progress. */
  #sendFrame(): void {
    const { random } = this.world;
    const requests: { seq: number; request: Request }[] = [];
    const count = random.pick([0, 1, 1, 1, 2, 3]);
    for (let i = 0; i < count; i++) {
      const drawn = this.#newRequest();
      if (drawn === null) continue;
      const seq = this.#nextSeq++;
      const parted = drawn.parted ?? null;
      this.#pending.set(seq, { request: drawn.request, sentOn: null, sentMs: 0, cancelled: false, parted });
      requests.push({ seq, request: drawn.request });
    }
    // Now and then a command whose effect is remembered is sent again although its stream is fine.
    if (random.chance(0.05)) {
      for (const [seq, { request }] of this.#pending) if (isRemembered(request)) requests.push({ seq, request });
    }
    this.#send(requests, random.chance(0.5));
    // Whether a lock has been handed on is not known then: the command is sent again.
    if (requests.some(({ request }) => request.kind === "transfer") && random.chance(0.3)) this.#breakStream();
  }

  #send(requests: { seq: number; request: Request }[], renew: boolean): void {
    const { nowMs, random } = this.world;
    const stream = this.#stream;
    if (stream === null) return;
    const frame = ++stream.frames;
    stream.sentMs.set(frame, nowMs);
    for (const { seq } of requests) {
      const pending = this.#pending.get(seq);
      if (pending === undefined || pending.sentOn === stream) continue;
      pending.sentOn = stream;
      pending.sentMs = nowMs;
    }
    const ackedBelow = Math.min(this.#nextSeq, ...this.#pending.keys());
    const acked: number[] = [];
    for (let seq = ackedBelow; seq < this.#nextSeq; seq++) {
      if (!this.#pending.has(seq) && random.chance(0.5)) acked.push(seq);
    }
    const observed = random.chance(0.1) ? random.between(0, 3_000_000) : 0;
    const { principal } = this;
    stream.toServer.push({
      frame,
      ackedBelow,
      acked,
      renew,
      progress: this.#progress(),
      principal,
      observed,
      requests,
    });
  }

  #progress(): number[] {
    const { random } = this.world;
    const progress: number[] = [];
    for (const [seq, lease] of this.#leases) {
      if (lease.progress ? !lease.hung && random.chance(0.6) : random.chance(0.02)) progress.push(seq);
    }
    return progress;
  }

  #newRequest(): { request: Request; parted?: Holding } | null {
    const { random } = this.world;
    const leaseSeqs = [...this.#leases.keys()];
    if (leaseSeqs.length === 0 || random.chance(0.02)) return this.#createLease();
    const kind = random.between(1, 100);
    const holds = [...this.#holds.values()];
    const takenAway = [...this.#takenAway.values()];
    if (takenAway.length > 0 && random.chance(0.3)) return { request: this.#confirm(random.pick(takenAway)) };
    if (kind <= 34 && holds.length > 0) return this.#partWith(kind, random.pick(holds));
    if (kind >= 35 && kind <= 37) return this.#cancel();
    if (kind === 38) return { request: this.#revoke(random.pick(leaseSeqs)) };
    const lesser = kind >= 39 && kind <= 48;
    return { request: lesser ? this.#lesser(kind, holds) : this.#acquire(random.pick(leaseSeqs)) };
  }

  #partWith(kind: number, hold: Holding): { request: Request; parted?: Holding } {
    if (kind <= 15) return { request: this.#release(hold) };
    const exclusive = [...this.#holds.values()].find(({ mode }) => mode === "exclusive");
    return kind <= 24 ? this.#transfer(hold) : this.#downgrade(exclusive ?? hold);
  }

  /** What leaves the client's beliefs alone. */
  #lesser(kind: number, holds: readonly Holding[]): Request {
    const { random, lockNames } = this.world;
    const name = random.pick(lockNames);
    const token = holds[0]?.token ?? random.between(1, 20);
    if (kind <= 41) return { kind: "tick", observed: random.between(0, 5_000_000), count: random.between(1, 10) };
    if (kind <= 43) return { kind: "describeLock", name, waitersMax: 3, wallMs: 0 };
    if (kind <= 44) return { kind: "listLocks", prefix: "", after: "", limit: 2, wallMs: 0 };
    if (kind <= 45) return { kind: "validate", name: holds[0]?.name ?? name, token };
    return { kind: "setMetadata", name: holds[0]?.name ?? name, token, metadata: "bmV3" };
  }

  #createLease(): { request: Request } | null {
    if ([...this.#pending.values()].some(({ request }) => request.kind === "createLease")) return null;
    const { random } = this.world;
    const ttlMs = random.pick([500, 1_000, 3_000]);
    const progressEveryMs = random.chance(0.25) ? random.pick([500, 1_500]) : 0;
    const leaseId = this.world.freshId();
    return { request: { kind: "createLease", leaseId, ttlMs, owner: "s", metadata: "", progressEveryMs } };
  }

  #acquire(leaseSeq: number): Acquire {
    const { random } = this.world;
    const waitMs = random.pick([0, 100, 1_000, 5_000]);
    const drawn = drawAcquire(this.world, [...this.#holds.keys()]);
    return { ...drawn, holder: { kind: "session", seq: leaseSeq }, waitMs, requestId: "", pollMs: 0 };
  }

  /** From the send on, the hold counts as gone. */
  #release({ name, token }: Holding): Request {
    this.#holds.delete(token);
    return { kind: "release", name, token };
  }

  #confirm({ name, token }: Holding): Request {
    this.#takenAway.delete(token);
    return { kind: "release", name, token };
  }

  #transfer(parted: Holding): { request: Request; parted: Holding } {
    const { name, token } = parted;
    this.#holds.delete(token);
    return { request: { kind: "transfer", name, token, ticketId: this.world.someTicket(name) }, parted };
  }

  /** From the send on it is a shared one. */
  #downgrade(parted: Holding): { request: Request } {
    const { name, token } = parted;
    if (parted.mode === "exclusive") this.#holds.set(token, { ...parted, mode: "shared" });
    return { request: { kind: "downgrade", name, token } };
  }

  #cancel(): { request: Request } | null {
    for (const [seq, pending] of this.#pending) {
      if (pending.request.kind !== "acquire" || pending.cancelled) continue;
      pending.cancelled = true;
      return { request: { kind: "cancelAcquire", target: { kind: "session", seq } } };
    }
    return null;
  }

  #revoke(seq: number): Request {
    this.#leaseGone(seq);
    return { kind: "revokeLease", lease: { kind: "session", seq }, expired: this.world.random.chance(0.5) };
  }

  /** Leases that are over by its own clock, mostly, and a few others. */
  #abandon(): number[] {
    const { nowMs, random } = this.world;
    const abandoned: number[] = [];
    for (const [seq, { untilMs }] of this.#leases) {
      if (random.chance(nowMs >= untilMs ? 0.7 : 0.03)) abandoned.push(seq);
    }
    for (const seq of abandoned) this.#leaseGone(seq);
    return abandoned;
  }

  #leaseGone(leaseSeq: number): void {
    this.#leases.delete(leaseSeq);
    for (const holds of [this.#holds, this.#takenAway]) {
      for (const [token, hold] of holds) if (hold.leaseSeq === leaseSeq) holds.delete(token);
    }
  }

  onReply(stream: SimStream, reply: Reply): void {
    if (stream !== this.#stream) return;
    if (reply.kind === "replaced") this.#breakStream();
    else if (reply.kind === "leaseEnd") this.#leaseGone(reply.leaseSeq);
    else if (reply.kind === "holdEnd") this.#holdEnds(reply.token, reply.confirm);
    else if (reply.kind === "renewal") this.#believe(reply.leaseSeq, stream.sentMs.get(reply.frame), reply.remainingMs);
    else if (reply.kind === "outcome") this.#onOutcome(stream, reply.seq, reply.outcome);
  }

  #holdEnds(token: number, confirm: boolean): void {
    const hold = this.#holds.get(token);
    this.#holds.delete(token);
    if (!confirm) this.#takenAway.delete(token);
    else if (hold !== undefined) this.#takenAway.set(token, hold);
  }

  #believe(leaseSeq: number, sentMs: number | undefined, remainingMs: number): void {
    const lease = this.#leases.get(leaseSeq);
    if (sentMs === undefined || lease === undefined) return;
    lease.untilMs = Math.max(lease.untilMs, sentMs + remainingMs);
  }

  #onOutcome(stream: SimStream, seq: number, outcome: Outcome): void {
    if (outcome.kind === "welcome") {
      stream.clientSession = outcome.sessionId;
      this.#sessionId = outcome.sessionId;
      for (const token of outcome.lost) this.#holds.delete(token);
      this.#send(
        [...this.#pending].map(([pendingSeq, { request }]) => ({ seq: pendingSeq, request })),
        true,
      );
      return;
    }
    if (seq === 0) {
      // Not welcome.
      if (outcome.kind === "refused" && outcome.reason !== "LIMIT") this.#forgetAll();
      else this.#breakStream();
      return;
    }
    const pending = this.#pending.get(seq);
    if (pending === undefined) return;
    this.#pending.delete(seq);
    if (outcome.kind === "lease") this.#leased(seq, pending.sentMs, outcome.lease.remainingMs, pending.request);
    if (outcome.kind === "grant") this.#granted(pending, outcome);
    const { parted } = pending;
    // Refused for good: the hold is the client's as before, if its lease is.
    const kept = outcome.kind === "refused" && ["NOT_WAITING", "INVALID"].includes(outcome.reason);
    if (parted !== null && kept && this.#leases.has(parted.leaseSeq)) this.#holds.set(parted.token, parted);
  }

  #leased(seq: number, sentMs: number, remainingMs: number, request: Request): void {
    const progress = request.kind === "createLease" && request.progressEveryMs > 0;
    const hung = progress && this.world.random.chance(0.3);
    this.#leases.set(seq, { untilMs: sentMs + remainingMs, progress, hung });
  }

  #granted({ request, cancelled, sentMs }: Pending, outcome: Outcome & { kind: "grant" }): void {
    for (const { token } of outcome.grants) this.#highestToken = Math.max(this.#highestToken, token);
    if (cancelled || request.kind !== "acquire" || request.holder.kind !== "session") return;
    const leaseSeq = request.holder.seq;
    if (!this.#leases.has(leaseSeq)) return;
    const { maxHoldRemainingMs } = outcome;
    const untilMs = request.maxHoldMs === 0 ? Number.POSITIVE_INFINITY : sentMs + maxHoldRemainingMs;
    outcome.grants.forEach(({ name, token, slots }, index) => {
      const { mode, permits, permitLimit } = request.items[index] as LockItem;
      this.#holds.set(token, { name, token, mode, permits, permitLimit, slots, leaseSeq, untilMs });
    });
  }
}

/** What may be doubled: with an effect that the session remembers, or none that matters. A refusal leaves no memory. */
function isRemembered({ kind }: Request): boolean {
  return kind !== "acquire" && kind !== "transfer";
}

/** A client that speaks the session protocol as it is meant, on a network that breaks. */
import type { Acquire, Outcome, Reply, Request } from "../../../src/server/core/types.js";
import { SimStream } from "./network.js";
import type { Random } from "./random.js";

export interface Believed {
  readonly name: string;
  readonly token: number;
}

export interface ClientWorld {
  readonly random: Random;
  readonly nowMs: number;
  readonly clusterId: string;
  readonly lockNames: readonly string[];
  freshId(): string;
  connect(stream: SimStream, client: SessionClient): void;
}

interface Pending {
  readonly request: Request;
  /** Where and when it was sent first on the stream that is open: an answer that comes on it counts from then. */
  sentOn: SimStream | null;
  sentMs: number;
  cancelled: boolean;
}

interface Holding {
  readonly name: string;
  readonly leaseSeq: number;
  readonly acquireSeq: number;
}

export class SessionClient {
  #stream: SimStream | null = null;
  #sessionId = "";
  #epoch = 0;
  #nextSeq = 1;
  #highestToken = 0;
  /** Commands that are not answered. */
  readonly #pending = new Map<number, Pending>();
  /** Until when each lease is believed to live. */
  readonly #leases = new Map<number, number>();
  readonly #holds = new Map<number, Holding>();

  constructor(private readonly world: ClientWorld) {}

  /** Grants that the client believes in at this moment. */
  believed(): Believed[] {
    const { nowMs } = this.world;
    const believed: Believed[] = [];
    for (const [token, { name, leaseSeq }] of this.#holds) {
      if (nowMs < (this.#leases.get(leaseSeq) ?? 0)) believed.push({ name, token });
    }
    return believed;
  }

  act(): void {
    const { random } = this.world;
    if (random.chance(0.004)) this.#forgetAll(); // the process dies and another one starts
    if (this.#stream === null) {
      if (random.chance(0.4)) this.#connect();
      return;
    }
    if (random.chance(0.03)) this.#breakStream();
    else if (this.#welcomed) this.#sendFrame();
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
    this.#pending.clear();
    this.#leases.clear();
    this.#holds.clear();
  }

  #connect(): void {
    const { random, nowMs } = this.world;
    for (const [token, { leaseSeq }] of this.#holds) {
      // Past its own deadline, or (rarely) for no reason at all, it does not claim.
      if (nowMs >= (this.#leases.get(leaseSeq) ?? 0) || random.chance(0.05)) this.#holds.delete(token);
    }
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
      claims,
      outstanding,
      clusterId,
      highestToken,
      observed: 0,
    });
    this.world.connect(stream, this);
  }

  /** A few new commands, a renewal, or both. */
  #sendFrame(): void {
    const { random } = this.world;
    const requests: { seq: number; request: Request }[] = [];
    const count = random.pick([0, 1, 1, 1, 2, 3]);
    for (let i = 0; i < count; i++) {
      const request = this.#newRequest();
      if (request === null) continue;
      const seq = this.#nextSeq++;
      this.#pending.set(seq, { request, sentOn: null, sentMs: 0, cancelled: false });
      requests.push({ seq, request });
    }
    // Now and then a command whose effect is remembered is sent again although its stream is fine.
    if (random.chance(0.05)) {
      for (const [seq, { request }] of this.#pending) if (request.kind !== "acquire") requests.push({ seq, request });
    }
    this.#send(requests, random.chance(0.5));
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
    stream.toServer.push({ frame, ackedBelow, acked, renew, observed, requests });
  }

  #newRequest(): Request | null {
    const { random } = this.world;
    const leaseSeqs = [...this.#leases.keys()];
    if (leaseSeqs.length === 0 || random.chance(0.02)) return this.#createLease();
    const kind = random.between(1, 100);
    const tokens = [...this.#holds.keys()];
    if (kind <= 35 && tokens.length > 0) return this.#release(random.pick(tokens));
    if (kind <= 42) return this.#cancel();
    if (kind <= 44) return this.#revoke(random.pick(leaseSeqs));
    if (kind <= 46) return { kind: "tick", observed: random.between(0, 5_000_000), count: random.between(1, 10) };
    if (kind <= 48) return { kind: "describeLock", name: random.pick(this.world.lockNames), waitersMax: 3, wallMs: 0 };
    if (kind <= 50) return { kind: "listLocks", prefix: "", after: "", limit: 2, wallMs: 0 };
    return this.#acquire(random.pick(leaseSeqs));
  }

  #createLease(): Request | null {
    if ([...this.#pending.values()].some(({ request }) => request.kind === "createLease")) return null;
    const { random } = this.world;
    const ttlMs = random.pick([500, 1_000, 2_000]);
    return { kind: "createLease", leaseId: this.world.freshId(), ttlMs, owner: "s", metadata: "" };
  }

  #acquire(leaseSeq: number): Acquire {
    const { random } = this.world;
    const name = random.pick(this.world.lockNames);
    const waitMs = random.pick([0, 100, 1_000, 5_000]);
    const holder = { kind: "session", seq: leaseSeq } as const;
    return { kind: "acquire", name, holder, waitMs, pollMs: 0, requestId: "", owner: "", metadata: "", wallMs: 0 };
  }

  /** From the send on, the hold counts as gone. */
  #release(token: number): Request {
    const { name } = this.#holds.get(token) as Holding;
    this.#holds.delete(token);
    return { kind: "release", name, token };
  }

  #cancel(): Request | null {
    for (const [seq, pending] of this.#pending) {
      if (pending.request.kind !== "acquire" || pending.cancelled) continue;
      pending.cancelled = true;
      return { kind: "cancelAcquire", target: { kind: "session", seq } };
    }
    return null;
  }

  #revoke(seq: number): Request {
    this.#leaseGone(seq);
    return { kind: "revokeLease", lease: { kind: "session", seq } };
  }

  #leaseGone(leaseSeq: number): void {
    this.#leases.delete(leaseSeq);
    for (const [token, hold] of this.#holds) if (hold.leaseSeq === leaseSeq) this.#holds.delete(token);
  }

  onReply(stream: SimStream, reply: Reply): void {
    if (stream !== this.#stream) return;
    if (reply.kind === "replaced") this.#breakStream();
    else if (reply.kind === "leaseEnd") this.#leaseGone(reply.leaseSeq);
    else if (reply.kind === "renewal") this.#believe(reply.leaseSeq, stream.sentMs.get(reply.frame), reply.remainingMs);
    else if (reply.kind === "outcome") this.#onOutcome(stream, reply.seq, reply.outcome);
  }

  #believe(leaseSeq: number, sentMs: number | undefined, remainingMs: number): void {
    const until = this.#leases.get(leaseSeq);
    if (sentMs === undefined || until === undefined) return;
    this.#leases.set(leaseSeq, Math.max(until, sentMs + remainingMs));
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
    if (outcome.kind === "lease") this.#leases.set(seq, pending.sentMs + outcome.lease.remainingMs);
    if (outcome.kind === "grant") this.#granted(seq, pending, outcome.token);
  }

  #granted(acquireSeq: number, pending: Pending, token: number): void {
    this.#highestToken = Math.max(this.#highestToken, token);
    const { request } = pending;
    if (pending.cancelled || request.kind !== "acquire" || request.holder.kind !== "session") return;
    const leaseSeq = request.holder.seq;
    if (this.#leases.has(leaseSeq)) this.#holds.set(token, { name: request.name, leaseSeq, acquireSeq });
  }
}

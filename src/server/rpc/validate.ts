/**
 * From wire messages to the requests of the core: every field is checked here, and nothing that the core must not draw
 * itself (fresh ids, wall time) is left out. A bad field gives a refusal; nothing is corrected silently.
 */
import type { leasehold } from "@leasehold/client/wire";
import type { Acquire, Attach, CoreLimits, HolderSpec, Refusal, Request } from "../core/types.js";
import {
  badBytes,
  badOptionalText,
  badPositive,
  badRange,
  badText,
  invalid,
  readPageToken,
  refuse,
  toBase64,
} from "./check.js";
import type { RpcLimits } from "./limits.js";

/** Where random ids and the wall clock come from. */
export interface Sources {
  /** A fresh secret of at least 128 random bits. */
  freshId(): string;
  /** Milliseconds since 1970, for display only. */
  wallMs(): number;
}

const LOCK_MODE_EXCLUSIVE = 1;

export class RequestValidator {
  constructor(
    private readonly core: CoreLimits,
    private readonly rpc: RpcLimits,
    private readonly sources: Sources,
  ) {}

  createLease(m: leasehold.v1.CreateLeaseRequest): Request | Refusal {
    const { core } = this;
    const bad =
      (m.ttlMs === 0 ? null : this.badTtl(m.ttlMs)) ??
      badOptionalText("owner", m.owner, core.ownerBytesMax) ??
      badBytes("metadata", m.metadata, core.metadataBytesMax);
    if (bad) return bad;
    const ttlMs = m.ttlMs === 0 ? core.ttlMsDefault : m.ttlMs;
    return {
      kind: "createLease",
      leaseId: this.sources.freshId(),
      ttlMs,
      owner: m.owner,
      metadata: toBase64(m.metadata),
    };
  }

  renewLease(m: leasehold.v1.RenewLeaseRequest): Request | Refusal {
    return this.badLeaseId(m.leaseId) ?? { kind: "renewLease", leaseId: m.leaseId };
  }

  revokeLease(m: leasehold.v1.RevokeLeaseRequest): Request | Refusal {
    return this.badLeaseId(m.leaseId) ?? { kind: "revokeLease", lease: { kind: "lease", leaseId: m.leaseId } };
  }

  getLease(m: leasehold.v1.GetLeaseRequest): Request | Refusal {
    return this.badLeaseId(m.leaseId) ?? { kind: "getLease", leaseId: m.leaseId };
  }

  listLeases(m: leasehold.v1.ListLeasesRequest): Request | Refusal {
    const after = readPageToken(m.pageToken, this.rpc.idBytesMax);
    if (after === null) return badPageToken();
    const limit = m.pageSize === 0 ? this.rpc.pageSizeDefault : m.pageSize;
    return badRange("page_size", limit, 1, this.rpc.pageSizeMax) ?? { kind: "listLeases", after, limit };
  }

  /** An Acquire of a unary call. `remainingMs`: until the deadline of the call; Infinity if it has none. */
  acquireCall(m: leasehold.v1.AcquireRequest, remainingMs: number): Request | Refusal {
    if (m.sessionLease !== null && m.sessionLease !== undefined) {
      return invalid("session_lease can only be used on a session; name the lease by lease_id");
    }
    if (m.waitMs > 0 && m.requestId === "") {
      return invalid(`request_id must be set when wait_ms is above 0; given: wait_ms ${m.waitMs}`);
    }
    const bad = badOptionalText("request_id", m.requestId, this.rpc.requestIdBytesMax);
    if (bad) return bad;
    return this.acquire(m, m.requestId, remainingMs);
  }

  private acquire(m: leasehold.v1.AcquireRequest, requestId: string, remainingMs: number): Acquire | Refusal {
    const { core } = this;
    const bad =
      badText("name", m.name, core.nameBytesMax) ??
      (m.mode > LOCK_MODE_EXCLUSIVE || m.mode < 0 ? badMode(m.mode) : null) ??
      (m.waitMs > core.waitMsMax ? badRange("wait_ms", m.waitMs, 0, core.waitMsMax) : null) ??
      badOptionalText("owner", m.owner, core.ownerBytesMax) ??
      badBytes("metadata", m.metadata, core.metadataBytesMax);
    if (bad) return bad;
    const holder = this.holder(m);
    if (holder.kind === "refused") return holder;
    return {
      kind: "acquire",
      name: m.name,
      holder,
      waitMs: m.waitMs,
      pollMs: remainingMs === NO_POLL ? 0 : this.pollMs(holder, remainingMs),
      requestId,
      owner: m.owner,
      metadata: toBase64(m.metadata),
      wallMs: this.sources.wallMs(),
    };
  }

  private holder(m: leasehold.v1.AcquireRequest): HolderSpec | Refusal {
    const { sessionLease, leaseId, ttlMs } = m;
    if (sessionLease !== null && sessionLease !== undefined) {
      return badPositive("session_lease", sessionLease) ?? { kind: "session", seq: sessionLease };
    }
    if (leaseId !== null && leaseId !== undefined) return this.badLeaseId(leaseId) ?? { kind: "lease", leaseId };
    if (ttlMs !== null && ttlMs !== undefined) {
      // The field was set, so a zero is a mistake and not a wish for the default.
      return this.badTtl(ttlMs) ?? { kind: "own", leaseId: this.sources.freshId(), ttlMs };
    }
    return { kind: "own", leaseId: this.sources.freshId(), ttlMs: this.core.ttlMsDefault };
  }

  /** A third of the TTL, so that the next poll renews the lease in time, and early enough to answer before a deadline. */
  private pollMs(holder: HolderSpec, remainingMs: number): number {
    const ttlMs = holder.kind === "own" ? holder.ttlMs : this.core.ttlMsDefault;
    const answerMs = remainingMs - Math.min(500, remainingMs / 4);
    return Math.max(1, Math.floor(Math.min(this.rpc.pollMsMax, ttlMs / 3, answerMs)));
  }

  cancelCall(m: leasehold.v1.CancelAcquireRequest): Request | Refusal {
    if (m.sessionAcquire !== 0) return invalid("session_acquire can only be used on a session; use request_id");
    const bad =
      badText("request_id", m.requestId, this.rpc.requestIdBytesMax) ??
      badOptionalText("lease_id", m.leaseId, this.rpc.idBytesMax);
    if (bad) return bad;
    return { kind: "cancelAcquire", target: { kind: "request", requestId: m.requestId, leaseId: m.leaseId } };
  }

  private cancelOnSession(m: leasehold.v1.CancelAcquireRequest): Request | Refusal {
    if (m.requestId !== "") return invalid("request_id cannot be used on a session; use session_acquire");
    const seq = m.sessionAcquire;
    return badPositive("session_acquire", seq) ?? { kind: "cancelAcquire", target: { kind: "session", seq } };
  }

  release(m: leasehold.v1.ReleaseRequest): Request | Refusal {
    const bad = badText("name", m.name, this.core.nameBytesMax) ?? badPositive("token", m.token);
    return bad ?? { kind: "release", name: m.name, token: m.token };
  }

  validate(m: leasehold.v1.ValidateRequest): Request | Refusal {
    const bad = badText("name", m.name, this.core.nameBytesMax) ?? badPositive("token", m.token);
    return bad ?? { kind: "validate", name: m.name, token: m.token };
  }

  describeLock(m: leasehold.v1.DescribeLockRequest): Request | Refusal {
    const waitersMax = m.waitersMax === 0 ? this.rpc.waitersListedDefault : m.waitersMax;
    const bad =
      badText("name", m.name, this.core.nameBytesMax) ??
      badRange("waiters_max", waitersMax, 1, this.rpc.waitersListedMax);
    return bad ?? { kind: "describeLock", name: m.name, waitersMax, wallMs: this.sources.wallMs() };
  }

  listLocks(m: leasehold.v1.ListLocksRequest): Request | Refusal {
    const after = readPageToken(m.pageToken, this.core.nameBytesMax);
    if (after === null) return badPageToken();
    const limit = m.pageSize === 0 ? this.rpc.pageSizeDefault : m.pageSize;
    const bad =
      badOptionalText("prefix", m.prefix, this.core.nameBytesMax) ??
      badRange("page_size", limit, 1, this.rpc.pageSizeMax);
    return bad ?? { kind: "listLocks", prefix: m.prefix, after, limit, wallMs: this.sources.wallMs() };
  }

  tick(m: leasehold.v1.TickRequest): Request | Refusal {
    const count = m.count === 0 ? 1 : m.count;
    return badRange("count", count, 1, this.core.tickCountMax) ?? { kind: "tick", observed: m.observed, count };
  }

  /**
   * A command of a session frame. Its own `observed` is not used (Tick's apart): the frame carries one for all.
   *
   * Decoding sets one of the fields at most and makes instances with all defaults; the generated types of nested
   * messages just do not say so. The getter that names the field that is set is too slow for here.
   */
  command(command: leasehold.v1.Command): Request | Refusal {
    if (command.acquire) return this.acquire(command.acquire as leasehold.v1.AcquireRequest, "", NO_POLL);
    if (command.release) return this.release(command.release as leasehold.v1.ReleaseRequest);
    if (command.createLease) return this.createLease(command.createLease as leasehold.v1.CreateLeaseRequest);
    if (command.revokeLease) return this.revokeLease(command.revokeLease as leasehold.v1.RevokeLeaseRequest);
    if (command.cancelAcquire) return this.cancelOnSession(command.cancelAcquire as leasehold.v1.CancelAcquireRequest);
    if (command.validate) return this.validate(command.validate as leasehold.v1.ValidateRequest);
    if (command.describeLock) return this.describeLock(command.describeLock as leasehold.v1.DescribeLockRequest);
    if (command.listLocks) return this.listLocks(command.listLocks as leasehold.v1.ListLocksRequest);
    if (command.tick) return this.tick(command.tick as leasehold.v1.TickRequest);
    const { revokeSessionLease } = command;
    if (typeof revokeSessionLease === "number") return this.revokeSessionLease(revokeSessionLease);
    return invalid("the command is empty, or of a kind that this server does not know");
  }

  private revokeSessionLease(seq: number): Request | Refusal {
    return badPositive("revoke_session_lease", seq) ?? { kind: "revokeLease", lease: { kind: "session", seq } };
  }

  /** The Hello of a stream, without what only the stream knows. */
  hello(m: leasehold.v1.Hello): Omit<Attach, "kind" | "route" | "observed"> | Refusal {
    const { rpc } = this;
    const bad =
      badOptionalText("hello.session_id", m.sessionId, rpc.idBytesMax) ??
      badPositive("hello.epoch", m.epoch) ??
      badOptionalText("hello.cluster_id", m.clusterId, rpc.idBytesMax) ??
      badOptionalText("hello.client", m.client, rpc.clientBytesMax) ??
      badNumbers("hello.claims", m.claims, rpc.claimsMax) ??
      badNumbers("hello.outstanding", m.outstanding, this.core.commandsPerSessionMax);
    if (bad) return bad;
    if (m.sessionId === "" && m.claims.length + m.outstanding.length > 0) {
      return invalid("hello.claims and hello.outstanding must be empty for a new session");
    }
    return {
      sessionId: m.sessionId,
      newSessionId: this.sources.freshId(),
      epoch: m.epoch,
      claims: m.claims,
      outstanding: m.outstanding,
      clusterId: m.clusterId,
      highestToken: m.highestToken,
    };
  }

  private badTtl(ttlMs: number): Refusal | null {
    const { ttlMsMin, ttlMsMax } = this.core;
    return ttlMs >= ttlMsMin && ttlMs <= ttlMsMax ? null : badRange("ttl_ms", ttlMs, ttlMsMin, ttlMsMax);
  }

  private badLeaseId(leaseId: string): Refusal | null {
    return badText("lease_id", leaseId, this.rpc.idBytesMax);
  }
}

/** A session needs no long poll: the stream stays open. */
const NO_POLL = -1;

function badMode(mode: number): Refusal {
  return invalid(`mode must be LOCK_MODE_EXCLUSIVE (1) or unset; given: ${mode}`);
}

function badPageToken(): Refusal {
  return invalid("page_token must be empty, or next_page_token of the response before");
}

function badNumbers(field: string, values: readonly number[], countMax: number): Refusal | null {
  if (values.length > countMax) {
    return refuse("LIMIT", `${field} has ${values.length} entries; at most ${countMax} are allowed`);
  }
  for (const value of values) {
    if (value < 1) return badPositive(`an entry of ${field}`, value);
  }
  return null;
}

/**
 * From wire messages to the requests of the core: every field is checked here, and nothing that the core must not draw
 * itself (fresh ids, wall time) is left out. A bad field gives a refusal; nothing is corrected silently.
 */
import type { leasehold } from "@leasehold/client/wire";
import type { Attach, CoreLimits, Refusal, Request } from "../core/types.js";
import {
  badBytes,
  badOptionalText,
  badPositive,
  badRange,
  badText,
  badTtl,
  invalid,
  readPageToken,
  refuse,
  toBase64,
} from "./check.js";
import type { RpcLimits } from "./limits.js";
import type { Sources } from "./sources.js";
import { AcquireValidator } from "./validate-acquire.js";

/** Of a ticket id, "T12". */
const TICKET_ID = /^T[1-9]\d{0,15}$/;

export class RequestValidator {
  readonly acquire: AcquireValidator;

  constructor(
    private readonly core: CoreLimits,
    private readonly rpc: RpcLimits,
    private readonly sources: Sources,
  ) {
    this.acquire = new AcquireValidator(core, rpc, sources);
  }

  createLease(m: leasehold.v1.CreateLeaseRequest): Request | Refusal {
    const { core } = this;
    const bad =
      (m.ttlMs === 0 ? null : badTtl("ttl_ms", m.ttlMs, core)) ??
      (m.progressEveryMs === 0 ? null : badTtl("progress_every_ms", m.progressEveryMs, core)) ??
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
      progressEveryMs: m.progressEveryMs,
    };
  }

  renewLease(m: leasehold.v1.RenewLeaseRequest): Request | Refusal {
    return this.badLeaseId(m.leaseId) ?? { kind: "renewLease", leaseId: m.leaseId, progress: m.progress };
  }

  revokeLease(m: leasehold.v1.RevokeLeaseRequest): Request | Refusal {
    return (
      this.badLeaseId(m.leaseId) ?? {
        kind: "revokeLease",
        lease: { kind: "lease", leaseId: m.leaseId },
        expired: false,
      }
    );
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
    return this.badHold(m) ?? { kind: "release", name: m.name, token: m.token };
  }

  transfer(m: leasehold.v1.TransferRequest): Request | Refusal {
    const { name, token, ticketId } = m;
    return this.badHold(m) ?? badTicketId(ticketId) ?? { kind: "transfer", name, token, ticketId };
  }

  downgrade(m: leasehold.v1.DowngradeRequest): Request | Refusal {
    return this.badHold(m) ?? { kind: "downgrade", name: m.name, token: m.token };
  }

  setMetadata(m: leasehold.v1.SetMetadataRequest): Request | Refusal {
    const bad = this.badHold(m) ?? badBytes("metadata", m.metadata, this.core.metadataBytesMax);
    return bad ?? { kind: "setMetadata", name: m.name, token: m.token, metadata: toBase64(m.metadata) };
  }

  validate(m: leasehold.v1.ValidateRequest): Request | Refusal {
    return this.badHold(m) ?? { kind: "validate", name: m.name, token: m.token };
  }

  private badHold(m: { readonly name: string; readonly token: number }): Refusal | null {
    return badText("name", m.name, this.core.nameBytesMax) ?? badPositive("token", m.token);
  }

  /** Token 0 is all holders. */
  forceRelease(m: leasehold.v1.ForceReleaseRequest): Request | Refusal {
    const { name, token, reason, now } = m;
    const bad =
      badText("name", name, this.core.nameBytesMax) ??
      badOptionalText("reason", reason, this.core.forceMessageBytesMax);
    return bad ?? { kind: "forceRelease", name, token, message: reason, now };
  }

  topLocks(m: leasehold.v1.TopLocksRequest): Request | Refusal {
    const limit = m.limit === 0 ? this.rpc.topDefault : m.limit;
    const bad = badRange("limit", limit, 1, this.rpc.topMax);
    return bad ?? { kind: "topLocks", limit, wallMs: this.sources.wallMs() };
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
    if (command.acquire) return this.acquire.oneOnSession(command.acquire as leasehold.v1.AcquireRequest);
    if (command.release) return this.release(command.release as leasehold.v1.ReleaseRequest);
    if (command.createLease) return this.createLease(command.createLease as leasehold.v1.CreateLeaseRequest);
    if (command.revokeLease) return this.revokeLease(command.revokeLease as leasehold.v1.RevokeLeaseRequest);
    if (command.cancelAcquire) return this.cancelOnSession(command.cancelAcquire as leasehold.v1.CancelAcquireRequest);
    if (command.acquireAll) return this.acquire.allOnSession(command.acquireAll as leasehold.v1.AcquireAllRequest);
    if (command.transfer) return this.transfer(command.transfer as leasehold.v1.TransferRequest);
    if (command.downgrade) return this.downgrade(command.downgrade as leasehold.v1.DowngradeRequest);
    if (command.setMetadata) return this.setMetadata(command.setMetadata as leasehold.v1.SetMetadataRequest);
    if (command.validate) return this.validate(command.validate as leasehold.v1.ValidateRequest);
    if (command.describeLock) return this.describeLock(command.describeLock as leasehold.v1.DescribeLockRequest);
    if (command.listLocks) return this.listLocks(command.listLocks as leasehold.v1.ListLocksRequest);
    if (command.tick) return this.tick(command.tick as leasehold.v1.TickRequest);
    const { revokeSessionLease, abandonSessionLease } = command;
    if (typeof revokeSessionLease === "number") {
      return this.endSessionLease("revoke_session_lease", revokeSessionLease, false);
    }
    if (typeof abandonSessionLease === "number") {
      return this.endSessionLease("abandon_session_lease", abandonSessionLease, true);
    }
    return invalid("the command is empty, or of a kind that this server does not know");
  }

  private endSessionLease(field: string, seq: number, expired: boolean): Request | Refusal {
    return badPositive(field, seq) ?? { kind: "revokeLease", lease: { kind: "session", seq }, expired };
  }

  /** The Hello of a stream, without what only the stream knows. */
  hello(m: leasehold.v1.Hello): Omit<Attach, "kind" | "route" | "observed"> | Refusal {
    const { rpc } = this;
    const bad =
      badOptionalText("hello.session_id", m.sessionId, rpc.idBytesMax) ??
      badPositive("hello.epoch", m.epoch) ??
      badOptionalText("hello.cluster_id", m.clusterId, rpc.idBytesMax) ??
      badOptionalText("hello.client", m.client, rpc.clientBytesMax) ??
      badOptionalText("hello.owner", m.owner, this.core.ownerBytesMax) ??
      badNumbers("hello.claims", m.claims, rpc.claimsMax) ??
      badNumbers("hello.outstanding", m.outstanding, this.core.commandsPerSessionMax) ??
      badNumbers("hello.abandoned", m.abandoned, this.core.holdsPerLeaseMax);
    if (bad) return bad;
    if (m.sessionId === "" && m.claims.length + m.outstanding.length + m.abandoned.length > 0) {
      return invalid("hello.claims, hello.outstanding and hello.abandoned must be empty for a new session");
    }
    return {
      sessionId: m.sessionId,
      newSessionId: this.sources.freshId(),
      epoch: m.epoch,
      claims: m.claims,
      outstanding: m.outstanding,
      abandoned: m.abandoned,
      clusterId: m.clusterId,
      highestToken: m.highestToken,
    };
  }

  private badLeaseId(leaseId: string): Refusal | null {
    return badText("lease_id", leaseId, this.rpc.idBytesMax);
  }
}

function badTicketId(ticketId: string): Refusal | null {
  if (TICKET_ID.test(ticketId) && Number.isSafeInteger(Number(ticketId.slice(1)))) return null;
  return invalid(
    `ticket_id must be a T and a number, as a waiter has it; given: ${JSON.stringify(ticketId.slice(0, 32))}`,
  );
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

/** Acquire and AcquireAll, as calls and on sessions: what they want, through which lease, and how long they wait. */
import type { leasehold } from "@leasehold/client/wire";
import type { Acquire, CoreLimits, HolderSpec, LockItem, LockMode, Refusal } from "../core/types.js";
import { badBytes, badOptionalText, badPositive, badRange, badText, badTtl, invalid, toBase64 } from "./check.js";
import type { RpcLimits } from "./limits.js";
import type { Sources } from "./sources.js";

/** What both messages have beside their locks. */
type Terms = Pick<
  leasehold.v1.AcquireRequest & leasehold.v1.AcquireAllRequest,
  | "leaseId"
  | "ttlMs"
  | "sessionLease"
  | "waitMs"
  | "requestId"
  | "owner"
  | "metadata"
  | "lockDelayMs"
  | "maxHoldMs"
  | "contenderId"
  | "heldTokens"
>;
type Lock = Pick<leasehold.v1.LockRequest, "name" | "mode" | "permits" | "permitLimit">;

/** By their numbers on the wire; unset is exclusive. */
const modes: readonly LockMode[] = ["exclusive", "exclusive", "shared", "semaphore"];

/** A session needs no long poll: the stream stays open. */
const NO_POLL = -1;

export class AcquireValidator {
  constructor(
    private readonly core: CoreLimits,
    private readonly rpc: RpcLimits,
    private readonly sources: Sources,
  ) {}

  /** `remainingMs`: until the deadline of the call; Infinity if it has none. */
  oneOfCall(m: leasehold.v1.AcquireRequest, remainingMs: number): Acquire | Refusal {
    return this.badCall(m) ?? this.one(m, m.requestId, remainingMs);
  }

  allOfCall(m: leasehold.v1.AcquireAllRequest, remainingMs: number): Acquire | Refusal {
    return this.badCall(m) ?? this.all(m, m.requestId, remainingMs);
  }

  oneOnSession(m: leasehold.v1.AcquireRequest): Acquire | Refusal {
    return this.one(m, "", NO_POLL);
  }

  allOnSession(m: leasehold.v1.AcquireAllRequest): Acquire | Refusal {
    return this.all(m, "", NO_POLL);
  }

  private badCall(m: Terms): Refusal | null {
    if (m.sessionLease !== null && m.sessionLease !== undefined) {
      return invalid("session_lease can only be used on a session; name the lease by lease_id");
    }
    if (m.waitMs > 0 && m.requestId === "") {
      return invalid(`request_id must be set when wait_ms is above 0; given: wait_ms ${m.waitMs}`);
    }
    return badOptionalText("request_id", m.requestId, this.rpc.requestIdBytesMax);
  }

  private one(m: leasehold.v1.AcquireRequest, requestId: string, remainingMs: number): Acquire | Refusal {
    const item = this.item(m, "");
    return "kind" in item ? item : this.acquire([item], false, m, requestId, remainingMs);
  }

  private all(m: leasehold.v1.AcquireAllRequest, requestId: string, remainingMs: number): Acquire | Refusal {
    const { locksPerAcquireMax, permitLimitMax } = this.core;
    const { locks } = m;
    const bad = badRange("the number of locks", locks.length, 1, locksPerAcquireMax);
    if (bad) return bad;
    const items: LockItem[] = [];
    const names = new Set<string>();
    let permits = 0;
    for (let i = 0; i < locks.length; i++) {
      const item = this.item(locks[i] as leasehold.v1.LockRequest, `locks[${i}].`);
      if ("kind" in item) return item;
      items.push(item);
      names.add(item.name);
      if (names.size < items.length) return invalid(`locks[${i}].name is there twice; names must differ`);
      permits += item.permits;
    }
    // The answer lists the slots of all of them.
    const tooMany = badRange("the permits of all locks together", permits, 0, permitLimitMax);
    return tooMany ?? this.acquire(items, true, m, requestId, remainingMs);
  }

  /** `where`: what comes before the names of its fields. */
  private item(m: Lock, where: string): LockItem | Refusal {
    const { name, permits, permitLimit } = m;
    const bad = badText(`${where}name`, name, this.core.nameBytesMax);
    if (bad) return bad;
    const mode = modes[m.mode];
    if (mode === undefined) {
      return invalid(
        `${where}mode must be LOCK_MODE_EXCLUSIVE (1), LOCK_MODE_SHARED (2), LOCK_MODE_SEMAPHORE (3) or unset; given: ${m.mode}`,
      );
    }
    if (mode === "semaphore") return this.semaphore(m, where);
    if (permits === 0 && permitLimit === 0) return { name, mode, permits: 0, permitLimit: 0 };
    const given = `given: ${permits} and ${permitLimit}`;
    return invalid(`${where}permits and permit_limit must be 0 unless mode is LOCK_MODE_SEMAPHORE (3); ${given}`);
  }

  private semaphore({ name, permits, permitLimit }: Lock, where: string): LockItem | Refusal {
    const taken = permits === 0 ? 1 : permits;
    const bad =
      badRange(`${where}permit_limit`, permitLimit, 1, this.core.permitLimitMax) ??
      badRange(`${where}permits`, taken, 1, permitLimit);
    return bad ?? { name, mode: "semaphore", permits: taken, permitLimit };
  }

  private acquire(
    items: readonly LockItem[],
    all: boolean,
    m: Terms,
    requestId: string,
    remainingMs: number,
  ): Acquire | Refusal {
    const bad = this.badTerms(m);
    if (bad) return bad;
    const holder = this.holder(m);
    if (holder.kind === "refused") return holder;
    return {
      kind: "acquire",
      items,
      all,
      holder,
      waitMs: m.waitMs,
      pollMs: remainingMs === NO_POLL ? 0 : this.pollMs(holder, remainingMs),
      requestId,
      owner: m.owner,
      metadata: toBase64(m.metadata),
      wallMs: this.sources.wallMs(),
      lockDelayMs: m.lockDelayMs,
      maxHoldMs: m.maxHoldMs,
      contenderId: m.contenderId,
      heldTokens: m.heldTokens,
    };
  }

  private badTerms(m: Terms): Refusal | null {
    const { core } = this;
    return (
      badRange("wait_ms", m.waitMs, 0, core.waitMsMax) ??
      badOptionalText("owner", m.owner, core.ownerBytesMax) ??
      badBytes("metadata", m.metadata, core.metadataBytesMax) ??
      badRange("lock_delay_ms", m.lockDelayMs, 0, core.lockDelayMsMax) ??
      badRange("max_hold_ms", m.maxHoldMs, 0, core.maxHoldMsMax) ??
      badOptionalText("contender_id", m.contenderId, core.contenderBytesMax) ??
      (m.heldTokens.length === 0 ? null : badHeldTokens(m.heldTokens, core.heldTokensMax))
    );
  }

  private holder(m: Terms): HolderSpec | Refusal {
    const { sessionLease, leaseId, ttlMs } = m;
    if (sessionLease !== null && sessionLease !== undefined) {
      return badPositive("session_lease", sessionLease) ?? { kind: "session", seq: sessionLease };
    }
    if (leaseId !== null && leaseId !== undefined) {
      return badText("lease_id", leaseId, this.rpc.idBytesMax) ?? { kind: "lease", leaseId };
    }
    if (ttlMs !== null && ttlMs !== undefined) {
      // The field was set, so a zero is a mistake and not a wish for the default.
      return badTtl("ttl_ms", ttlMs, this.core) ?? { kind: "own", leaseId: this.sources.freshId(), ttlMs };
    }
    return { kind: "own", leaseId: this.sources.freshId(), ttlMs: this.core.ttlMsDefault };
  }

  /** A third of the TTL, so that the next poll renews the lease in time, and early enough to answer before a deadline. */
  private pollMs(holder: HolderSpec, remainingMs: number): number {
    const ttlMs = holder.kind === "own" ? holder.ttlMs : this.core.ttlMsDefault;
    const answerMs = remainingMs - Math.min(500, remainingMs / 4);
    return Math.max(1, Math.floor(Math.min(this.rpc.pollMsMax, ttlMs / 3, answerMs)));
  }
}

function badHeldTokens(tokens: readonly number[], countMax: number): Refusal | null {
  const bad = badRange("the number of held_tokens", tokens.length, 0, countMax);
  if (bad) return bad;
  for (const token of tokens) if (token < 1) return badPositive("an entry of held_tokens", token);
  return null;
}

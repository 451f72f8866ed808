/** Who may do what, as the composition root uses it: credentials, then the policy, then the quota; and what is told of it. */
import type { Principal, Refusal } from "../core/types.js";
import type { WireFailure } from "../rpc/errors.js";
import type { Access, Charged, Demand, Identity, Peer, TooMany } from "./access.js";
import type { AuditLog } from "./audit.js";
import type { Authenticated, Authenticator } from "./authenticator.js";
import { type AuthFailure, withdrawn } from "./failures.js";
import type { Permissions, Policy } from "./policy.js";
import { connectionRequests, FreeRate, RequestRate } from "./rate.js";
import { RefusalPace } from "./refusals.js";
import { whenWithdrawn } from "./withdrawal.js";

export interface AccessControlOptions {
  readonly authenticator: Authenticator;
  /** The one that is in force now. */
  readonly policy: () => Policy;
  readonly audit: AuditLog;
  readonly monotonicMs: () => number;
  /** Somebody was refused: for metrics. */
  onRefused?(kind: AuthFailure["kind"] | "denied"): void;
}

/** Principals that are remembered although nothing of theirs is open. Who is forgotten begins with a full bucket. */
const REMEMBERED_MAX = 10_000;

export class AccessControl implements Access {
  readonly authentication = true;
  readonly #options: AccessControlOptions;
  /** Those that were used last are at the end. */
  readonly #accounts = new Map<string, Account>();

  constructor(options: AccessControlOptions) {
    this.#options = options;
  }

  authenticate(peer: Peer): Identity | WireFailure | Promise<Identity | WireFailure> {
    const who = this.#options.authenticator.authenticate(peer);
    return who instanceof Promise ? who.then((answer) => this.#answer(answer, peer)) : this.#answer(who, peer);
  }

  #answer(who: Authenticated | WireFailure, peer: Peer): Identity | WireFailure {
    if ("name" in who) return this.#identity(who, peer);
    const { audit, onRefused } = this.#options;
    const kind = (who as AuthFailure).kind;
    audit.refusal({ event: "unauthenticated", address: peer.address, requestId: peer.requestId, why: kind });
    onRefused?.(kind);
    return who;
  }

  #identity(who: Authenticated, peer: Peer): Identity {
    const account = this.#account(who.name);
    const { authenticator } = this.#options;
    return {
      get principal() {
        return account.principal;
      },
      permits: (demand) => this.#permits(account, demand, peer),
      sees: (name) => account.permissions.permits({ verb: "observe", or: "acquire", name, prefix: false }),
      charge: (requests, by) => this.#charge(account, requests, by),
      pace: (renewals) => this.#pace(account, renewals),
      onWithdrawn: (listener) => {
        account.open++;
        let closed = false;
        const close = () => {
          if (!closed) account.open--;
          closed = true;
        };
        const stop = whenWithdrawn(authenticator, who, () => {
          close();
          this.#options.onRefused?.(withdrawn.kind);
          listener(withdrawn);
        });
        return () => {
          close();
          stop();
        };
      },
    };
  }

  #account(name: string): Account {
    const known = this.#accounts.get(name);
    const account = known ?? new Account(name, this.#options.policy, this.#options.monotonicMs());
    if (known !== undefined) this.#accounts.delete(name);
    else if (this.#accounts.size >= REMEMBERED_MAX) this.#forgetOne();
    this.#accounts.set(name, account);
    return account;
  }

  /** Whoever has been away longest, unless a stream of his is open: those are bounded elsewhere. */
  #forgetOne(): void {
    for (const [name, account] of this.#accounts) {
      if (account.open > 0) continue;
      this.#accounts.delete(name);
      return;
    }
  }

  #permits(account: Account, demand: Demand, { address, requestId }: Peer): Refusal | null {
    if (account.permissions.permits(demand)) return null;
    const { audit, onRefused } = this.#options;
    const { verb, name, prefix } = demand;
    const subject = prefix ? { prefix: name } : { lock: name };
    audit.refusal({ event: "denied", principal: account.name, address, requestId, verb, ...subject });
    onRefused?.("denied");
    return { kind: "refused", reason: "DENIED", message: `${account.name} may not ${verb} ${subjectOf(demand)}` };
  }

  #charge(account: Account, asked: number, by: Charged = "call"): TooMany | null {
    const { requestsPerSecond, requestsBurst } = account.permissions.allowance;
    if (requestsPerSecond === 0) return null;
    const nowMs = this.#options.monotonicMs();
    const { rate, refusals } = account;
    const message = `${account.name} makes more than its ${requestsPerSecond} requests a second`;
    if (by === "again") {
      rate.owe(asked, requestsPerSecond, requestsBurst, nowMs);
      return null;
    }
    if (by === "frame") {
      const { taken, waitMs } = rate.takeSome(asked, requestsPerSecond, requestsBurst, nowMs);
      if (waitMs === 0) return null;
      const holdMs = refusals.frame(asked - taken, nowMs);
      return { reason: "LIMIT", message, retryAfterMs: waitMs, holdMs, admitted: taken };
    }
    const requests = by === "connection" ? asked * connectionRequests(requestsPerSecond) : asked;
    const waitMs = rate.take(requests, requestsPerSecond, requestsBurst, nowMs);
    if (waitMs === 0) return null;
    const holdMs = refusals.call(requests, nowMs);
    return { reason: "LIMIT", message, retryAfterMs: Math.max(1, waitMs - holdMs), holdMs }; // told after that
  }

  #pace(account: Account, renewals: number): number {
    const { requestsPerSecond } = account.permissions.allowance;
    return requestsPerSecond === 0 ? 0 : account.free.take(renewals, requestsPerSecond, this.#options.monotonicMs());
  }
}

function subjectOf({ name, prefix }: Demand): string {
  if (!prefix) return JSON.stringify(name);
  return name === "" ? "all locks" : `the locks that begin with ${JSON.stringify(name)}`;
}

/** What is kept of a principal. */
class Account {
  /** Streams that are open. */
  open = 0;
  readonly rate: RequestRate;
  readonly refusals = new RefusalPace();
  readonly free: FreeRate;
  #policy: Policy;
  #permissions: Permissions;
  #principal: Principal;

  constructor(
    readonly name: string,
    private readonly currentPolicy: () => Policy,
    nowMs: number,
  ) {
    this.#policy = currentPolicy();
    this.#permissions = this.#policy.of(name);
    this.#principal = principalOf(name, this.#permissions);
    this.rate = new RequestRate(this.#permissions.allowance.requestsBurst, nowMs);
    this.free = new FreeRate(nowMs);
  }

  /** By the policy that is in force now. */
  get permissions(): Permissions {
    this.#refresh();
    return this.#permissions;
  }

  get principal(): Principal {
    this.#refresh();
    return this.#principal;
  }

  #refresh(): void {
    const policy = this.currentPolicy();
    if (policy === this.#policy) return;
    this.#policy = policy;
    this.#permissions = policy.of(this.name);
    this.#principal = principalOf(this.name, this.#permissions);
  }
}

function principalOf(name: string, { allowance }: Permissions): Principal {
  const { leases, locks, waiters } = allowance;
  return { name, quota: { leasesMax: leases, locksMax: locks, waitersMax: waiters } };
}

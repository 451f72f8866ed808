/** What `connect` gives: locks, leases and timestamps of one server, over one session. */
import type { Client, ClientEvents, TryRun } from "./api.js";
import { checkFunction, checkInteger, checkKeys, checkName, checkPrefix } from "./arguments.js";
import { LockContext } from "./context.js";
import { type Duration, durationMs } from "./duration.js";
import { LeaseholdError } from "./errors.js";
import { LamportClock } from "./lamport.js";
import { type Lease, UserLease } from "./lease.js";
import type { HeldLock, Lock } from "./lock.js";
import {
  type AcquireOptions,
  acquireRequest,
  type LeaseOptions,
  leaseRequest,
  type QueueView,
  type TryOptions,
} from "./options.js";
import { type AcquireOutcome, type AcquireRequest, Acquisition } from "./session/acquisition.js";
import { closedError } from "./session/failure.js";
import { createKept, DefaultLease, revoke } from "./session/lease-provider.js";
import { LockOutcome, type TryAnswer, TryOutcome } from "./session/outcomes.js";
import { ask } from "./session/query.js";
import { Session, type SessionOptions } from "./session/session.js";
import { descriptionView, type LockDescription, type LockSummary, summaryView } from "./views.js";

/** What every acquire of a client starts from. */
export interface ClientDefaults {
  readonly ttlMs: number;
  readonly waitMs: number;
  readonly owner: string;
}

type Body<T> = (lock: Lock) => Promise<T> | T;

export class LeaseholdClient implements Client {
  readonly clock: LamportClock;
  /** For `connect` only. */
  readonly session: Session;
  readonly #defaults: ClientDefaults;
  readonly #defaultLease: DefaultLease;
  readonly #context = new LockContext();
  #closing: Promise<void> | null = null;

  constructor(options: SessionOptions, defaults: ClientDefaults) {
    this.clock = new LamportClock((count) => this.#range(count));
    this.session = new Session(options, this.clock);
    this.#defaults = defaults;
    this.#defaultLease = new DefaultLease(this.session, defaults.ttlMs, defaults.owner);
  }

  // ------------------------------------------------------------------------------------------------ locks

  acquire(name: string, options?: AcquireOptions): Promise<HeldLock> {
    return new Promise((resolve, reject) => {
      const request = this.#request(name, options, this.#defaults.waitMs);
      const outcome = new LockOutcome(resolve, reject);
      this.#start(request, outcome);
      if (options?.onQueued) this.#tellQueued(request.name, outcome, options.onQueued);
    });
  }

  async tryAcquire(name: string, options?: TryOptions): Promise<TryAnswer> {
    return new Promise((resolve, reject) => {
      if (options) checkKeys(options, TRY_OPTIONS, "the options of a try");
      this.#start(this.#request(name, options, 0), new TryOutcome(resolve, reject));
    });
  }

  #request(name: string, options: AcquireOptions | undefined, waitMs: number): AcquireRequest {
    return acquireRequest(name, options, waitMs, this.session, this.#defaultLease, this.#defaults.owner);
  }

  #start(request: AcquireRequest, outcome: AcquireOutcome): void {
    if (this.#closing) throw closedError();
    if (request.signal?.aborted) throw request.signal.reason;
    const waitUntilMs = this.session.time.nowMs() + request.waitMs;
    this.session.submit(new Acquisition(this.session, request, outcome, waitUntilMs, 1));
  }

  /** Asks who is ahead, right behind the acquire: if the answer finds it unanswered, it is queued. */
  #tellQueued(name: string, outcome: LockOutcome, onQueued: (queue: QueueView) => void): void {
    this.#describe(name, true).then(
      ({ holders, waitersTotal, reserved }) => {
        if (!outcome.settled) onQueued({ holders, waiters: waitersTotal, reserved });
      },
      () => {}, // the acquire itself reports what is wrong
    );
  }

  async withLock<T>(name: string, second: AcquireOptions | Body<T>, third?: Body<T>): Promise<T> {
    const [options, f] = bodyOf(second, third);
    if (this.#context.holds(checkName(name))) {
      throw new LeaseholdError(
        "DEADLOCK",
        `this code already holds the lock ${JSON.stringify(name)}; it would wait for itself`,
      );
    }
    return this.#run(await this.acquire(name, options), f);
  }

  async tryWithLock<T>(name: string, second: TryOptions | Body<T>, third?: Body<T>): Promise<TryRun<T>> {
    const [options, f] = bodyOf(second, third);
    const attempt = await this.tryAcquire(name, options);
    if (!attempt.acquired) return { ran: false, busy: attempt.busy };
    return { ran: true, value: await this.#run(attempt.lock, f) };
  }

  /** Runs `f` under the lock and gives the lock back. */
  async #run<T>(lock: HeldLock, f: Body<T>): Promise<T> {
    let failure: { readonly error: unknown } | undefined;
    let value: T | undefined;
    try {
      value = await this.#context.run(lock.name, () => f(lock));
    } catch (error) {
      failure = { error };
    }
    if (lock.failed) throw withCause(lock.error(), failure);
    await lock.release();
    if (failure) throw failure.error;
    return value as T;
  }

  // ------------------------------------------------------------------------------------------------ the rest

  async lease(options?: LeaseOptions): Promise<Lease> {
    if (this.#closing) throw closedError();
    const { ttlMs, owner } = leaseRequest(options, this.#defaults);
    const lease = createKept(this.session, ttlMs, owner);
    await new Promise<void>((resolve) => lease.whenSettled(resolve));
    if (lease.end?.is === "refused") throw lease.end.error;
    if (lease.end !== null) throw new LeaseholdError("LOST", "the lease ended before the server had confirmed it");
    return new UserLease(lease);
  }

  async describe(name: string): Promise<LockDescription> {
    return this.#describe(checkName(name), false);
  }

  #describe(name: string, inTurn: boolean): Promise<LockDescription> {
    const wire = { describeLock: { name } };
    return ask(
      this.session,
      wire,
      ({ describeLock }) => (describeLock ? descriptionView(describeLock) : undefined),
      inTurn,
    );
  }

  async *locks(
    options: { prefix?: string | undefined; pageSize?: number | undefined } = {},
  ): AsyncGenerator<LockSummary, void> {
    checkKeys(options, ["prefix", "pageSize"], "the options of locks");
    const prefix = options.prefix ? checkPrefix(options.prefix) : "";
    const pageSize = checkInteger(options.pageSize ?? 0, "the page size");
    let pageToken = "";
    do {
      const page = await ask(
        this.session,
        { listLocks: { prefix, pageSize, pageToken } },
        (result) => result.listLocks ?? undefined,
      );
      for (const lock of page.locks ?? []) yield summaryView(lock);
      pageToken = page.nextPageToken ?? "";
    } while (pageToken !== "");
  }

  async validate(name: string, token: number): Promise<boolean> {
    const wire = { validate: { name: checkName(name), token: checkInteger(token, "the token") } };
    return ask(this.session, wire, (result) => (result.validate ? (result.validate.held ?? false) : undefined));
  }

  #range(count: number): Promise<{ first: number; last: number }> {
    const wire = { tick: { observed: this.clock.now(), count } };
    return ask(this.session, wire, ({ tick }) => {
      if (!tick) return undefined;
      this.clock.merge(tick.last ?? 0);
      return { first: tick.first ?? 0, last: tick.last ?? 0 };
    });
  }

  on<K extends keyof ClientEvents>(event: K, f: (value: ClientEvents[K]) => void): Disposable {
    return this.session.reports.events.on(event, f);
  }

  close(options: { readonly timeout?: Duration | undefined } = {}): Promise<void> {
    try {
      checkKeys(options, ["timeout"], "the options of close");
      const timeoutMs = durationMs(options.timeout ?? "5s", "the timeout");
      this.#closing ??= this.#close(timeoutMs);
    } catch (error) {
      return Promise.reject(error);
    }
    return this.#closing;
  }

  async #close(timeoutMs: number): Promise<void> {
    const { session } = this;
    const { locks, leases } = session.holdings;
    for (const lock of locks.values()) lock.closed();
    const ends = [...leases.values()].map((lease) => revoke(lease));
    session.cancelWaiting();
    await new Promise<void>((resolve) => {
      const timer = session.time.setTimer(timeoutMs, resolve, true);
      // Withdrawals and revocations that nobody waits for count too: what they end would else outlive this client.
      void Promise.all([...ends, session.flushed()]).then(() => {
        timer.cancel();
        resolve();
      });
    });
    session.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}

const TRY_OPTIONS = ["signal", "lease", "ttl", "owner", "metadata"];

/** `withLock(name, f)` or `withLock(name, options, f)`. */
function bodyOf<O, T>(second: O | Body<T>, third: Body<T> | undefined): [O | undefined, Body<T>] {
  const short = typeof second === "function" && third === undefined;
  const f = short ? (second as Body<T>) : third;
  checkFunction(f, "the last argument");
  return [short ? undefined : (second as O), f as Body<T>];
}

function withCause(error: LeaseholdError, failure: { readonly error: unknown } | undefined): LeaseholdError {
  if (!failure) return error;
  const { code, message, lost, retryable } = error;
  return new LeaseholdError(code, message, { cause: failure.error, retryable, ...(lost ? { lost } : {}) });
}

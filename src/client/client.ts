/** What `connect` gives: locks, leases and timestamps of one server, over one session. */
import type { Client, ClientEvents, TryRun } from "./api.js";
import { checkFunction, checkInteger, checkKeys, checkName, checkPrefix } from "./arguments.js";
import { LockContext } from "./context.js";
import { type Duration, durationMs } from "./duration.js";
import { type CampaignOptions, campaign, type LeadOptions } from "./election/campaign.js";
import { lead } from "./election/lead.js";
import { type Leadership, Term } from "./election/leadership.js";
import { type Leader, Observation, type ObserveOptions } from "./election/observe.js";
import { LeaseholdError } from "./errors.js";
import { withFloors } from "./floor.js";
import type { HeldLock } from "./held-lock.js";
import { LamportClock } from "./lamport.js";
import { type Lease, UserLease } from "./lease.js";
import type { Lock } from "./lock.js";
import { HeldSet, type LockSet } from "./lock-set.js";
import {
  type AcquireAllOptions,
  type AcquireOptions,
  acquireAllRequest,
  acquireRequest,
  itemsOf,
  type LeaseOptions,
  type LockSpec,
  leaseRequest,
  type QueueView,
  type Surroundings,
  type TryOptions,
} from "./options.js";
import type { AcquireRequest } from "./session/acquire-request.js";
import { type AcquireOutcome, Acquisition } from "./session/acquisition.js";
import { closedError } from "./session/failure.js";
import { createKept, DefaultLease, revoke } from "./session/lease-provider.js";
import { LockOutcome, type TryAnswer, TryOutcome } from "./session/outcomes.js";
import { ask } from "./session/query.js";
import { Session, type SessionOptions } from "./session/session.js";
import type { ClientTracing } from "./tracing.js";
import { descriptionView, type LockDescription, type LockSummary, summaryView } from "./views.js";
import type { WatchEvent } from "./watch/events.js";
import { Watches, type WatchOptions, type WatchTarget, watchStart } from "./watch/watches.js";

/** What every acquire of a client starts from. */
export interface ClientDefaults {
  readonly ttlMs: number;
  readonly waitMs: number;
  readonly owner: string;
  /** Absent: nothing is traced. */
  readonly tracing?: ClientTracing | undefined;
}

type Body<T, S = Lock> = (subject: S) => Promise<T> | T;
type LeadBody = Body<unknown, Leadership>;

export class LeaseholdClient implements Client {
  readonly clock: LamportClock;
  /** For `connect` only. */
  readonly session: Session;
  readonly #defaults: ClientDefaults;
  readonly #context = new LockContext();
  readonly #around: Surroundings;
  readonly #watches: Watches;
  readonly #random: () => number;
  #closing: Promise<void> | null = null;

  constructor(options: SessionOptions, defaults: ClientDefaults) {
    this.clock = new LamportClock((count) => this.#range(count));
    this.session = new Session(options, this.clock);
    this.#watches = new Watches(options, this.clock);
    this.#random = options.random;
    this.#defaults = defaults;
    const { ttlMs, waitMs, owner } = defaults;
    const { session } = this;
    this.#around = {
      session,
      defaultLease: new DefaultLease(session, ttlMs, owner),
      owner,
      waitMs,
      context: this.#context,
    };
  }

  // ------------------------------------------------------------------------------------------------ locks

  acquire(name: string, options?: AcquireOptions): Promise<HeldLock> {
    const acquired = new Promise<HeldLock>((resolve, reject) => {
      const request = acquireRequest(name, options, this.#around, false);
      const outcome = new LockOutcome(([lock]) => lock as HeldLock, resolve, reject);
      this.#start(request, outcome);
      if (options?.onQueued) this.#tellQueued(request, outcome, options.onQueued);
    });
    const { fence, signal } = options ?? {};
    return fence ? acquired.then((lock) => withFloors(lock, [lock], fence, signal)) : acquired;
  }

  acquireAll(names: readonly LockSpec[], options?: AcquireAllOptions): Promise<HeldSet> {
    const acquired = new Promise<HeldSet>((resolve, reject) => {
      const request = acquireAllRequest(names, options, this.#around);
      const outcome = new LockOutcome((locks) => new HeldSet(locks), resolve, reject);
      this.#start(request, outcome);
      if (options?.onQueued) this.#tellQueued(request, outcome, options.onQueued);
    });
    const { fence, signal } = options ?? {};
    return fence ? acquired.then((set) => withFloors(set, set.locks, fence, signal)) : acquired;
  }

  async tryAcquire(name: string, options?: TryOptions): Promise<TryAnswer> {
    const answer = await new Promise<TryAnswer>((resolve, reject) => {
      const request = acquireRequest(name, options, { ...this.#around, waitMs: 0 }, true);
      this.#start(request, new TryOutcome(resolve, reject));
    });
    const { fence, signal } = options ?? {};
    if (fence && answer.acquired) await withFloors(answer.lock, [answer.lock], fence, signal);
    return answer;
  }

  #start(request: AcquireRequest, outcome: AcquireOutcome): void {
    if (this.#closing) throw closedError();
    if (request.signal?.aborted) throw request.signal.reason;
    const waitUntilMs = this.session.time.nowMs() + request.waitMs;
    const { tracing } = this.#defaults;
    const traced = tracing ? tracing.acquire(request, outcome) : { request, outcome };
    this.session.submit(new Acquisition(this.session, traced.request, traced.outcome, waitUntilMs, 1));
  }

  /** Asks who is ahead, right behind the acquire: if the answer finds it unanswered, it is queued. */
  #tellQueued<T>({ items }: AcquireRequest, outcome: LockOutcome<T>, onQueued: (queue: QueueView) => void): void {
    Promise.all(items.map(({ name }) => this.#describe(name, true))).then(
      (locks) => {
        const lock = locks.find(isTaken) ?? locks[0];
        if (outcome.settled || !lock) return;
        const { waitersTotal, waiters: _, ...view } = lock;
        onQueued({ ...view, waiters: waitersTotal });
      },
      () => {}, // the acquire itself reports what is wrong
    );
  }

  async withLock<T>(name: string, second: AcquireOptions | Body<T>, third?: Body<T>): Promise<T> {
    const [options, f] = bodyOf(second, third);
    this.#checkNesting(checkName(name));
    const lock = await this.acquire(name, options);
    return this.#run(lock, [lock], f);
  }

  async withLocks<T>(
    names: readonly LockSpec[],
    second: AcquireAllOptions | Body<T, LockSet>,
    third?: Body<T, LockSet>,
  ): Promise<T> {
    const [options, f] = bodyOf(second, third);
    for (const { name } of itemsOf(names)) this.#checkNesting(name);
    const set = await this.acquireAll(names, options);
    return this.#run(set, set.locks, f);
  }

  #checkNesting(name: string): void {
    if (!this.#context.excludes(name)) return;
    const message = `this code already holds the lock ${JSON.stringify(name)}; it would wait for itself`;
    throw new LeaseholdError("DEADLOCK", message);
  }

  async tryWithLock<T>(name: string, second: TryOptions | Body<T>, third?: Body<T>): Promise<TryRun<T>> {
    const [options, f] = bodyOf(second, third);
    const attempt = await this.tryAcquire(name, options);
    if (!attempt.acquired) return { ran: false, busy: attempt.busy };
    return { ran: true, value: await this.#run(attempt.lock, [attempt.lock], f) };
  }

  /** Runs `f` under the lock, or under several, and gives them back, after a loss too. */
  async #run<T, S extends HeldLock | HeldSet>(held: S, locks: readonly HeldLock[], f: Body<T, S>): Promise<T> {
    let failure: { readonly error: unknown } | undefined;
    let value: T | undefined;
    try {
      const { tracing } = this.#defaults;
      value = await this.#context.run(locks, () => (tracing ? tracing.within(locks, () => f(held)) : f(held)));
    } catch (error) {
      failure = { error };
    }
    const loss = held.failed ? held.error() : undefined;
    await held.release();
    if (loss) throw withCause(loss, failure);
    if (failure) throw failure.error;
    return value as T;
  }

  // ------------------------------------------------------------------------------------------------ elections, watching

  async campaign(name: string, options: CampaignOptions = {}): Promise<Leadership> {
    return new Term(await campaign(this, name, options), null);
  }

  async lead(name: string, second: LeadOptions | LeadBody, third?: LeadBody): Promise<void> {
    const [options = {}, f] = bodyOf(second, third);
    await lead({ client: this, time: this.session.time, random: this.#random }, name, options, f);
  }

  observe(name: string, options: ObserveOptions = {}): AsyncIterable<Leader | null> {
    checkKeys(options, ["signal"], "the options of observe");
    const observation = new Observation();
    return this.#watches.subscribe(watchStart({ name }, {}), options.signal, (event) => observation.take(event));
  }

  watch(target: WatchTarget, options: WatchOptions = {}): AsyncIterable<WatchEvent> {
    return this.#watches.subscribe(watchStart(target, options), options.signal, (value) => ({ value }));
  }

  // ------------------------------------------------------------------------------------------------ the rest

  async lease(options?: LeaseOptions): Promise<Lease> {
    if (this.#closing) throw closedError();
    const { ttlMs, owner, progressEveryMs } = leaseRequest(options, this.#defaults);
    const lease = createKept(this.session, ttlMs, owner, progressEveryMs);
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
    this.#watches.close();
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

/** Not free, or not for long: others wait as well. */
const isTaken = ({ holders, waitersTotal, reserved, delayRemainingMs }: LockDescription): boolean =>
  holders.length > 0 || reserved || delayRemainingMs > 0 || waitersTotal > 1;

/** `withLock(name, f)` or `withLock(name, options, f)`. */
function bodyOf<O, S, T>(second: O | Body<T, S>, third: Body<T, S> | undefined): [O | undefined, Body<T, S>] {
  const short = typeof second === "function" && third === undefined;
  const f = short ? (second as Body<T, S>) : third;
  checkFunction(f, "the last argument");
  return [short ? undefined : (second as O), f as Body<T, S>];
}

function withCause(error: LeaseholdError, failure: { readonly error: unknown } | undefined): LeaseholdError {
  if (!failure) return error;
  const { code, message, lost, retryable } = error;
  return new LeaseholdError(code, message, { cause: failure.error, retryable, ...(lost ? { lost } : {}) });
}

/** A client that records what is asked of it and what it answers, and is otherwise the client that it was. */
import type { Client, TryRun } from "./api.js";
import type { CampaignOptions, LeadOptions } from "./election/campaign.js";
import type { Leadership } from "./election/leadership.js";
import type { Leader, ObserveOptions } from "./election/observe.js";
import type { HistoryEvent } from "./history/event.js";
import { type Kept, keptLock, keptSet, keptTerm, originalOf, overlay } from "./history/held.js";
import { type Call, Recorder, type RecordOptions } from "./history/recorder.js";
import type { Clock } from "./lamport.js";
import type { Lock } from "./lock.js";
import type { LockSet } from "./lock-set.js";
import type { AcquireAllOptions, AcquireOptions, LockSpec, TryOptions } from "./options.js";

export interface RecordedClient extends Client {
  /**
   * Records a write to a storage that refuses lower tokens. `write` makes it, and resolves to whether it was accepted; if
   * it rejects, that is unknown.
   *
   * @example
   * await client.recordWrite("orders/42", lock.token, async () => (await update(order, lock.token)).rowCount === 1);
   */
  recordWrite(resource: string, token: number, write: () => Promise<boolean>): Promise<boolean>;
}

/**
 * Wraps a client so that `leasehold verify` can check afterwards what its server did. `take` gets an event for the call
 * and one for the result of each acquire, release, transfer, downgrade and `clock.range`, and one for each look at a
 * token, `assertHeld`, `clock.tick` and leader that was observed. Each belongs on a line of its own, as JSON.
 *
 * Use the client that this returns, and the locks that it gives. Nothing else changes. `take` must not throw; in a process
 * that may be killed it should write at once.
 *
 * @example
 * const file = openSync("history.jsonl", "a");
 * const client = recordHistory(await connect(), (event) => writeSync(file, `${JSON.stringify(event)}\n`));
 */
export function recordHistory(
  client: Client,
  take: (event: HistoryEvent) => void,
  options: RecordOptions = {},
): RecordedClient {
  const recorder = new Recorder(take, options);
  return overlay<Client, RecordedClient>(client, {
    ...acquiring(client, recorder),
    ...running(client, recorder),
    ...electing(client, recorder),
    clock: recordedClock(client.clock, recorder),
    async recordWrite(resource, token, write) {
      const call = recorder.call("write", { op: "write", type: "invoke", resource, token });
      return call.settle(write(), (accepted) => ({ op: "write", type: accepted ? "ok" : "fail" }));
    },
  });
}

/** The client knows its locks, not what is laid over them. */
function unwrapped<O extends AcquireAllOptions>(options: O | undefined): O | undefined {
  if (!Array.isArray(options?.holding)) return options;
  return { ...options, holding: (options.holding as readonly Lock[]).map((lock) => originalOf(lock)) };
}

/** Waits for a lock, and records if there is none. */
async function attempt<T>(call: Call, promise: Promise<T>): Promise<T> {
  try {
    return await promise;
  } catch (error) {
    call.failed(error);
    throw error;
  }
}

const BUSY = { op: "acquire", type: "fail", error: "BUSY" } as const;

// -------------------------------------------------------------------------------------------------- taking locks

function acquiring(client: Client, recorder: Recorder): Partial<Client> {
  return {
    async acquire(name: string, options?: AcquireOptions) {
      const call = recorder.acquire([{ ...options, name }]);
      const lock = await attempt(call, client.acquire(name, unwrapped(options)));
      call.granted([lock]);
      return keptLock(recorder, lock).recorded;
    },
    async tryAcquire(name: string, options?: TryOptions) {
      const call = recorder.acquire([{ ...options, name }]);
      const result = await attempt(call, client.tryAcquire(name, options));
      if (!result.acquired) {
        call.result(BUSY);
        return result;
      }
      call.granted([result.lock]);
      return { ...result, lock: keptLock(recorder, result.lock).recorded };
    },
    async acquireAll(names: readonly LockSpec[], options?: AcquireAllOptions) {
      const call = recorder.acquire(names);
      const set = await attempt(call, client.acquireAll(names, unwrapped(options)));
      call.granted(set.locks);
      return keptSet(recorder, set).recorded;
    },
    async campaign(name: string, options?: CampaignOptions) {
      const call = recorder.acquire([name]);
      const term = await attempt(call, client.campaign(name, unwrapped(options)));
      call.granted([term]);
      return keptTerm(recorder, term).recorded;
    },
  };
}

// -------------------------------------------------------------------------------------------------- running under locks

type Body<S, T> = (held: S) => Promise<T> | T;

/**
 * Runs what takes locks, runs `f` and gives the locks back. When `f` has settled they count as gone; how that went is
 * asked of the release, which gives the same answer again.
 */
async function around<S, T, R>(
  call: Call,
  f: Body<S, T>,
  keep: (held: S) => Kept<S>,
  run: (body: (held: S) => Promise<T>) => Promise<R>,
): Promise<R> {
  let kept: Kept<S> | null = null as Kept<S> | null;
  try {
    const result = await run(async (held) => {
      const own = keep(held);
      kept = own;
      try {
        return await f(own.recorded);
      } finally {
        own.leave();
      }
    });
    if (kept === null) call.result(BUSY);
    return result;
  } catch (error) {
    if (kept === null) call.failed(error);
    throw error;
  } finally {
    await kept?.left();
  }
}

function running(client: Client, recorder: Recorder): Partial<Client> {
  const keepLock = (call: Call) => (lock: Lock) => {
    call.granted([lock]);
    return keptLock(recorder, lock);
  };
  return {
    async withLock<T>(name: string, second: AcquireOptions | Body<Lock, T>, third?: Body<Lock, T>): Promise<T> {
      const [options, f] = bodyOf<AcquireOptions, Lock, T>(second, third);
      if (!f) return client.withLock(name, second as AcquireOptions, third as Body<Lock, T>);
      const call = recorder.acquire([{ ...options, name }]);
      return around(call, f, keepLock(call), (body) => client.withLock(name, unwrapped(options) ?? {}, body));
    },
    async tryWithLock<T>(name: string, second: TryOptions | Body<Lock, T>, third?: Body<Lock, T>): Promise<TryRun<T>> {
      const [options, f] = bodyOf<TryOptions, Lock, T>(second, third);
      if (!f) return client.tryWithLock(name, second as TryOptions, third as Body<Lock, T>);
      const call = recorder.acquire([{ ...options, name }]);
      return around(call, f, keepLock(call), (body) => client.tryWithLock(name, options ?? {}, body));
    },
    async withLocks<T>(
      names: readonly LockSpec[],
      second: AcquireAllOptions | Body<LockSet, T>,
      third?: Body<LockSet, T>,
    ): Promise<T> {
      const [options, f] = bodyOf<AcquireAllOptions, LockSet, T>(second, third);
      if (!f) return client.withLocks(names, second as AcquireAllOptions, third as Body<LockSet, T>);
      const call = recorder.acquire(names);
      const keep = (set: LockSet) => {
        call.granted(set.locks);
        return keptSet(recorder, set);
      };
      return around(call, f, keep, (body) => client.withLocks(names, unwrapped(options) ?? {}, body));
    },
  };
}

/** As the client reads its arguments; without `f` it refuses them. */
function bodyOf<O, S, T>(
  second: O | Body<S, T>,
  third: Body<S, T> | undefined,
): [O | undefined, Body<S, T> | undefined] {
  if (typeof second === "function" && third === undefined) return [undefined, second as Body<S, T>];
  return [second as O, typeof third === "function" ? third : undefined];
}

// -------------------------------------------------------------------------------------------------- elections, the clock

function electing(client: Client, recorder: Recorder): Partial<Client> {
  return {
    async lead(name: string, second: LeadOptions | Body<Leadership, unknown>, third?: Body<Leadership, unknown>) {
      const [options, f] = bodyOf<LeadOptions, Leadership, unknown>(second, third);
      if (!f) return client.lead(name, second as LeadOptions, third as Body<Leadership, unknown>);
      // It stands again after a loss, when the callback has settled: so that is the earliest moment of the next call.
      let call = recorder.acquire([name]);
      try {
        await client.lead(name, unwrapped(options) ?? {}, async (term) => {
          call.granted([term]);
          const kept = keptTerm(recorder, term);
          try {
            return await f(kept.recorded);
          } finally {
            kept.leave();
            call = recorder.acquire([name]);
          }
        });
      } finally {
        call.failed(null);
      }
    },
    observe(name: string, options?: ObserveOptions) {
      return sights(name, client.observe(name, options), recorder);
    },
  };
}

async function* sights(
  name: string,
  leaders: AsyncIterable<Leader | null>,
  recorder: Recorder,
): AsyncGenerator<Leader | null, void> {
  const id = recorder.nextId();
  for await (const leader of leaders) {
    if (leader) recorder.write(id, { op: "observe", type: "ok", name, token: leader.token });
    yield leader;
  }
}

function recordedClock(clock: Clock, recorder: Recorder): Clock {
  return overlay<Clock>(clock, {
    tick() {
      const ns = recorder.nowNs();
      const timestamp = clock.tick();
      recorder.write(recorder.nextId(), { op: "tick", type: "ok", timestamp }, ns);
      return timestamp;
    },
    async range(count) {
      if (!Number.isSafeInteger(count) || count < 1) return clock.range(count);
      const call = recorder.call("range", { op: "range", type: "invoke", count });
      return call.settle(clock.range(count), ({ first, last }) => ({ op: "range", type: "ok", first, last }));
    },
  });
}

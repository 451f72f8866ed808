/**
 * The consumer of stamped messages without a broker: what it does about failures, bounds, and a record that has moved.
 */
import { FenceError } from "@leasehold/fence";
import { type ConsumerOptions, type Mark, MemoryHighWater, type Report } from "@leasehold/fence/rabbitmq";
import { describe, expect, onTestFinished, test, vi } from "vitest";
import { OrderedConsumer, type Settled } from "../../src/fence/messages/consumer.js";
import { consumerSettings, type MessageContext } from "../../src/fence/messages/consumer-options.js";
import { stampHeaders } from "../../src/fence/messages/stamp.js";
import { ManualTiming, settled } from "./messages-timing.js";

type Handle = (message: string, context: MessageContext<unknown>) => unknown;

interface Sent {
  key?: string;
  token?: number;
  shared?: boolean;
  timestamp?: number;
  source?: object;
}

class Bench {
  readonly timing = new ManualTiming();
  readonly highWater = new MemoryHighWater();
  readonly reports: Report[] = [];
  readonly handled: string[] = [];
  /** What the broker was told of each message, as "message: settled". */
  readonly told: string[] = [];
  /** Messages that need no attention any more. */
  readonly passed: string[] = [];
  stopped = 0;
  readonly consumer: OrderedConsumer<string, unknown>;

  constructor(handle: Handle = () => {}, options: Partial<ConsumerOptions<unknown>> = {}) {
    const settings = consumerSettings(
      { highWater: this.highWater, onGap: "skip", report: (report) => this.reports.push(report), ...options },
      [],
    );
    const handler: Handle = async (message, context) => {
      await handle(message, context);
      this.handled.push(message);
    };
    const stop = async () => {
      this.stopped += 1;
    };
    this.consumer = new OrderedConsumer(handler, settings, stop, this.timing);
    this.consumer.ended.catch(() => {}); // each test says what it expects of it
    onTestFinished(() => this.consumer.close());
  }

  /** Delivers a message; its text is "token.sequence", with the key if that is not k. */
  async deliver(sequence: number, { key = "k", token = 5, shared = false, timestamp, source }: Sent = {}) {
    const message = `${key === "k" ? "" : `${key} `}${token}.${sequence}`;
    const headers = stampHeaders({ key, token, sequence, shared, timestamp });
    const settle = (how: Settled) => void this.told.push(`${message}: ${how}`);
    void this.consumer.accept(headers, message, settle, source).then(() => this.passed.push(message));
    await settled();
  }

  kinds(): string[] {
    return this.reports.map(({ is }) => is);
  }
}

/** A handler that waits until it is let go. */
function gate() {
  const waiting: (() => void)[] = [];
  return {
    waiting,
    handle: () => new Promise<void>((resolve) => waiting.push(resolve)),
    async open() {
      for (const resolve of waiting.splice(0)) resolve();
      await settled();
    },
  };
}

describe("in order", () => {
  test("messages are handled in order, put on record, and only then acknowledged", async () => {
    const bench = new Bench();
    await bench.deliver(2);
    expect(bench.passed).toEqual(["5.2"]); // it waits, and a reader that takes one at a time may go on
    expect(bench.told).toEqual([]);
    await bench.deliver(1);
    expect(bench.handled).toEqual(["5.1", "5.2"]);
    expect(bench.told).toEqual(["5.1: done", "5.2: done"]);
    expect(await bench.highWater.load("k")).toEqual({ token: 5, sequence: 2 });
    expect(bench.kinds()).toEqual(["handled", "handled"]);
  });

  test("a marker is put on record and not handled", async () => {
    const bench = new Bench();
    await bench.deliver(0, { token: 7 });
    expect(bench.handled).toEqual([]);
    expect(await bench.consumer.inspect("k")).toEqual({ resource: "k", floor: 7 });
    expect(bench.reports).toEqual([{ is: "raised", key: "k", token: 7, sequence: 0 }]);
    await bench.deliver(1, { token: 6 });
    expect(bench.handled).toEqual([]);
    expect(bench.reports.at(-1)).toEqual({ is: "stale", key: "k", token: 6, sequence: 1, floor: 7, applied: false });
    expect(bench.told).toEqual(["7.0: done", "6.1: done"]);
  });

  test("messages of one key are handled one after the other, of different keys side by side, in bounds", async () => {
    const { handle, waiting, open } = gate();
    const bench = new Bench(handle, { concurrency: 2 });
    await bench.deliver(1);
    await bench.deliver(2);
    expect(waiting.length).toBe(1);
    await bench.deliver(1, { key: "b" });
    await bench.deliver(1, { key: "c" });
    expect(waiting.length).toBe(2);
    await open();
    expect(waiting.length).toBe(2); // k's second, and c's, or k's first ended and let c in
    await open();
    await open();
    expect(bench.handled.sort()).toEqual(["5.1", "5.2", "b 5.1", "c 5.1"]);
  });

  test("a message that cannot be read is rejected and reported, and stops nobody", async () => {
    const bench = new Bench();
    const bad: (Record<string, unknown> | undefined)[] = [
      undefined,
      {},
      {
        ...stampHeaders({ key: "k", token: 5, sequence: 1, shared: false, timestamp: undefined }),
        "leasehold-token": "5.0",
      },
      { "leasehold-key": "k", "leasehold-token": "5", "leasehold-sequence": "-1" },
      { "leasehold-key": "a\nb", "leasehold-token": "5", "leasehold-sequence": "1" },
      { "leasehold-key": "k", "leasehold-token": 5, "leasehold-sequence": "1" },
      { "leasehold-key": "k", "leasehold-token": "5", "leasehold-sequence": "1", "leasehold-mode": "mine" },
      { "leasehold-key": ["k", "l"], "leasehold-token": "5", "leasehold-sequence": "1" },
      { "leasehold-key": "k", "leasehold-token": "9007199254740992", "leasehold-sequence": "1" },
      { "leasehold-key": "k", "leasehold-token": "5", "leasehold-sequence": "1", "lamport-timestamp": "x" },
    ];
    for (const headers of bad) await bench.consumer.accept(headers, "bad", (how) => bench.told.push(how));
    expect(bench.told).toEqual(bad.map(() => "rejected"));
    expect(bench.kinds()).toEqual(bad.map(() => "invalid"));
    await bench.deliver(1);
    expect(bench.handled).toEqual(["5.1"]);
  });

  test("the clock observes a message's timestamp before it is handled, once", async () => {
    const seen: string[] = [];
    const bench = new Bench(
      (_message, context) => {
        seen.push(`handled ${context.timestamp} in attempt ${context.attempt}`);
        if (context.attempt === 1) throw new Error("no");
      },
      { clock: { observe: (timestamp) => seen.push(`observed ${timestamp}`) }, retryMs: 10 },
    );
    await bench.deliver(1, { timestamp: 40 });
    await bench.timing.advance(10);
    expect(seen).toEqual(["observed 40", "handled 40 in attempt 1", "handled 40 in attempt 2"]);
  });
});

describe("gaps", () => {
  test("a gap is passed over when its time is up, without another message", async () => {
    const bench = new Bench(() => {}, { gapMs: 1_000 });
    await bench.deliver(3);
    await bench.timing.advance(999);
    expect(bench.handled).toEqual([]);
    await bench.timing.advance(1);
    expect(bench.handled).toEqual(["5.3"]);
    expect(bench.reports[0]).toEqual({
      ...{ is: "gap", key: "k", token: 5, from: 1, to: 2, why: "late", skipped: true },
    });
    expect(bench.timing.pending).toEqual([]);
  });

  test("a filled gap leaves no timer that matters, and the next gap has its own", async () => {
    const bench = new Bench(() => {}, { gapMs: 1_000 });
    await bench.deliver(2);
    await bench.timing.advance(600);
    await bench.deliver(1);
    await bench.deliver(4);
    await bench.timing.advance(999);
    expect(bench.handled).toEqual(["5.1", "5.2"]);
    await bench.timing.advance(1);
    expect(bench.handled).toEqual(["5.1", "5.2", "5.4"]);
  });

  test("stop: the consumer ends when no more can be held back, and everything goes back to the broker", async () => {
    const bench = new Bench(() => {}, { onGap: "stop", heldMax: 2 });
    for (const sequence of [2, 3, 4, 5]) await bench.deliver(sequence);
    await expect(bench.consumer.ended).rejects.toMatchObject({ code: "LIMIT", resource: "k", token: 5 });
    expect(bench.told.sort()).toEqual(["5.2: returned", "5.3: returned", "5.4: returned", "5.5: returned"]);
    expect(bench.passed.length).toBe(4);
    expect(bench.stopped).toBe(1);
  });

  test("stop: the key stands still, others go on, and skip lets it go on", async () => {
    const bench = new Bench(() => {}, { onGap: "stop", gapMs: 100 });
    await bench.deliver(2);
    await bench.timing.advance(500);
    await bench.deliver(1, { key: "other" });
    expect(bench.handled).toEqual(["other 5.1"]);
    expect(bench.consumer.skip("k")).toBe(true);
    await settled();
    expect(bench.handled).toEqual(["other 5.1", "5.2"]);
    expect(bench.kinds()).toEqual(["gap", "handled", "gap", "handled"]);
  });
});

describe("a handler that fails", () => {
  test("is tried again, after pauses that double, and the key waits for it", async () => {
    let failures = 2;
    const fail = () => {
      if (failures-- > 0) throw new Error("not yet");
    };
    const bench = new Bench(fail, { retryMs: 100, attemptsMax: 3 });
    await bench.deliver(1);
    await bench.deliver(2);
    expect(bench.timing.pending).toEqual([100]);
    await bench.timing.advance(100);
    expect(bench.timing.pending).toEqual([200]);
    await bench.timing.advance(200);
    expect(bench.handled).toEqual(["5.1", "5.2"]);
  });

  test("stop: after the last attempt the consumer ends with its error, and the message goes back", async () => {
    const error = new Error("never");
    const bench = new Bench(() => Promise.reject(error), { retryMs: 1, attemptsMax: 2 });
    await bench.deliver(1);
    await bench.deliver(2);
    await bench.timing.advance(1);
    await expect(bench.consumer.ended).rejects.toBe(error);
    expect(bench.told.sort()).toEqual(["5.1: returned", "5.2: returned"]);
    expect(bench.reports).toEqual([{ is: "failed", key: "k", token: 5, sequence: 1, error }]);
    await bench.deliver(3);
    expect(bench.told.at(-1)).toBe("5.3: returned");
  });

  test("skip: the message is rejected and on record, and the key goes on", async () => {
    const bench = new Bench((message) => (message === "5.1" ? Promise.reject(new Error("never")) : undefined), {
      onFailure: "skip",
      attemptsMax: 1,
    });
    await bench.deliver(1);
    await bench.deliver(2);
    expect(bench.told).toEqual(["5.1: rejected", "5.2: done"]);
    expect(bench.kinds()).toEqual(["failed", "handled"]);
    await bench.deliver(1);
    expect(bench.kinds().at(-1)).toBe("duplicate");
  });

  test("what was handled and could not be put on record is not handled again, and is never given up", async () => {
    const bench = new Bench(() => {}, { onFailure: "skip", attemptsMax: 3, retryMs: 10 });
    const save = vi.spyOn(bench.highWater, "save").mockRejectedValueOnce(new Error("away"));
    await bench.deliver(1);
    await bench.timing.advance(10);
    expect(bench.handled).toEqual(["5.1"]);
    expect(bench.told).toEqual(["5.1: done"]);
    save.mockRejectedValue(new Error("away for good"));
    await bench.deliver(2);
    await bench.timing.advance(1_000);
    expect(bench.handled).toEqual(["5.1", "5.2"]);
    await expect(bench.consumer.ended).rejects.toThrow("away for good");
    expect(bench.told.at(-1)).toBe("5.2: returned");
  });

  test("a record that cannot be read is tried again, and then ends the consumer", async () => {
    const bench = new Bench(() => {}, { attemptsMax: 2, retryMs: 10 });
    const load = vi.spyOn(bench.highWater, "load").mockRejectedValueOnce(new Error("away"));
    await bench.deliver(1);
    await bench.timing.advance(10);
    expect(bench.handled).toEqual(["5.1"]);
    load.mockRejectedValue(new Error("away for good"));
    await bench.deliver(1, { key: "other" });
    await bench.timing.advance(10);
    await expect(bench.consumer.ended).rejects.toThrow("away for good");
    expect(bench.told.at(-1)).toBe("other 5.1: returned");
  });

  test("closing does not wait for the next attempt, nor make one", async () => {
    const handle = vi.fn(() => Promise.reject(new Error("no")));
    const bench = new Bench(handle, { retryMs: 60_000 });
    await bench.deliver(1);
    await bench.consumer.close();
    await bench.consumer.ended;
    expect(handle).toHaveBeenCalledTimes(1);
    expect(bench.told).toEqual(["5.1: returned"]);
  });
});

describe("a record that another consumer has moved", () => {
  /** Another consumer, which was here meanwhile. */
  const moved = (bench: Bench, mark: Mark) => bench.highWater.save("k", mark);

  test("a message that it has handled is dropped, and the order goes on from the record", async () => {
    const bench = new Bench((_message, context) => context.save(undefined));
    await bench.deliver(1);
    await moved(bench, { token: 5, sequence: 3 });
    await bench.deliver(2);
    await bench.deliver(3);
    await bench.deliver(4);
    expect(bench.handled).toEqual(["5.1", "5.4"]);
    expect(bench.kinds()).toEqual(["handled", "duplicate", "duplicate", "handled"]);
    expect(bench.reports[1]).toMatchObject({ applied: false });
    expect(bench.told).toEqual(["5.1: done", "5.2: done", "5.3: done", "5.4: done"]);
  });

  test("a message of a producer that has become stale is dropped: save rejects with STALE_TOKEN", async () => {
    const errors: unknown[] = [];
    const bench = new Bench(async (_message, context) => {
      await context.save(undefined).catch((error: unknown) => {
        errors.push(error);
        throw error;
      });
    });
    await bench.deliver(1);
    await moved(bench, { token: 6, sequence: 0 });
    await bench.deliver(2);
    expect(errors).toEqual([expect.objectContaining({ code: "STALE_TOKEN", resource: "k", token: 5, floor: 6 })]);
    expect(bench.reports.at(-1)).toEqual({ is: "stale", key: "k", token: 5, sequence: 2, floor: 6, applied: false });
    await bench.deliver(1, { token: 6 });
    expect(bench.handled).toEqual(["5.1", "6.1"]);
  });

  test("what was held back is judged by the record again", async () => {
    const bench = new Bench((_message, context) => context.save(undefined));
    await bench.deliver(1);
    await bench.deliver(3);
    await bench.deliver(4);
    await moved(bench, { token: 5, sequence: 3 });
    await bench.deliver(2);
    expect(bench.handled).toEqual(["5.1", "5.4"]);
    expect(bench.told.sort()).toEqual(["5.1: done", "5.2: done", "5.3: done", "5.4: done"]);
  });

  test("when it has moved far, what comes next is not taken for a gap", async () => {
    const bench = new Bench((_message, context) => context.save(undefined));
    await bench.deliver(1);
    await moved(bench, { token: 5, sequence: 9 });
    await bench.deliver(2);
    await bench.deliver(10);
    expect(bench.handled).toEqual(["5.1", "5.10"]);
  });

  test("a handler that ignores the refusal, or does not save, is told of as applied", async () => {
    const ignoring = new Bench((_message, context) => context.save(undefined).catch(() => {}));
    const unsaved = new Bench();
    for (const bench of [ignoring, unsaved]) {
      await bench.deliver(1);
      await moved(bench, { token: 5, sequence: 2 });
      await bench.deliver(2);
      expect(bench.reports.at(-1)).toMatchObject({ is: "duplicate", applied: true });
    }
  });

  test("a shared hold's message is checked against it, too", async () => {
    const bench = new Bench((_message, context) => context.save(undefined));
    await bench.deliver(1, { token: 10 });
    await bench.deliver(1, { token: 12, shared: true });
    await bench.deliver(1, { token: 11, shared: true });
    expect((await bench.consumer.inspect("k")).floor).toBe(10);
    await moved(bench, { token: 13, sequence: 0 });
    await bench.deliver(2, { token: 12, shared: true });
    expect(bench.handled).toEqual(["10.1", "12.1", "11.1"]);
    expect(bench.reports.at(-1)).toMatchObject({ is: "stale", token: 12, floor: 13, applied: false });
  });
});

describe("bounds and the end", () => {
  test("keys that are idle are forgotten for others, and read from the record when they come back", async () => {
    const bench = new Bench(() => {}, { keysMax: 2 });
    const load = vi.spyOn(bench.highWater, "load");
    for (const key of ["a", "b", "c", "a"]) await bench.deliver(1, { key });
    expect(bench.kinds()).toEqual(["handled", "handled", "handled", "duplicate"]);
    expect(load.mock.calls.map(([key]) => key)).toEqual(["a", "b", "c", "a"]);
  });

  test("when no key is idle, another one is too much: LIMIT", async () => {
    const bench = new Bench(() => {}, { keysMax: 2 });
    await bench.deliver(2, { key: "a" });
    await bench.deliver(2, { key: "b" });
    await bench.deliver(1, { key: "c" });
    await expect(bench.consumer.ended).rejects.toMatchObject({ code: "LIMIT", resource: "c" });
    expect(bench.told.sort()).toEqual(["a 5.2: returned", "b 5.2: returned", "c 5.1: returned"]);
  });

  test("a record in memory is bounded as well", async () => {
    const highWater = new MemoryHighWater({ keysMax: 1 });
    await highWater.save("a", { token: 1, sequence: 1 });
    await expect(highWater.save("b", { token: 1, sequence: 1 })).rejects.toMatchObject({ code: "LIMIT" });
    expect(await highWater.save("a", { token: 1, sequence: 2 })).toBeUndefined();
  });

  test("close finishes what handlers are at, and gives back everything else when delivery was stopped", async () => {
    const { handle, open } = gate();
    const bench = new Bench(handle, { concurrency: 1 });
    await bench.deliver(1);
    await bench.deliver(2);
    await bench.deliver(1, { key: "other" });
    await bench.deliver(9, { key: "held" });
    let closed = false;
    const closing = bench.consumer.close().then(() => {
      closed = true;
    });
    await settled();
    expect(bench.stopped).toBe(1);
    expect(bench.passed.sort()).toEqual(["5.2", "held 5.9", "other 5.1"]); // nobody waits for them
    expect(closed).toBe(false);
    await open();
    await closing;
    await bench.consumer.ended;
    expect(bench.told[0]).toBe("5.1: done");
    expect(bench.told.slice(1).sort()).toEqual(["5.2: returned", "held 5.9: returned", "other 5.1: returned"]);
    expect(bench.timing.pending).toEqual([]);
  });

  test("the signal of a handler is aborted when the consumer ends", async () => {
    let signal: AbortSignal | undefined;
    const bench = new Bench((_message, context) => {
      ({ signal } = context);
      return new Promise((resolve) => context.signal.addEventListener("abort", resolve));
    });
    await bench.deliver(1);
    expect(signal?.aborted).toBe(false);
    bench.consumer.fail(new FenceError("UNREACHABLE", "gone"));
    await expect(bench.consumer.ended).rejects.toMatchObject({ code: "UNREACHABLE" });
    expect(bench.told).toEqual(["5.1: done"]);
  });

  test("a report function that throws harms nobody", async () => {
    const warning = new Promise<Error>((resolve) => process.once("warning", resolve));
    const bench = new Bench(() => {}, {
      report: () => {
        throw new Error("metrics are down");
      },
    });
    await bench.deliver(1);
    expect(bench.told).toEqual(["5.1: done"]);
    expect((await warning).message).toContain("metrics are down");
  });

  test.each([
    ["no record", { highWater: undefined }],
    ["no decision about gaps", { onGap: undefined }],
    ["an unknown one", { onGap: "wait" }],
    ["an unknown option", { gap: 5 }],
    ["no number", { gapMs: Number.NaN }],
    ["more in one key than in all", { heldMax: 5, heldPerKeyMax: 6 }],
    ["nothing held back", { heldMax: 0 }],
  ])("%s is refused", (_what, options) => {
    const all = { highWater: new MemoryHighWater(), onGap: "skip", ...options } as unknown as ConsumerOptions<unknown>;
    expect(() => consumerSettings(all, [])).toThrow(expect.objectContaining({ code: "INVALID" }));
  });
});

describe("forgetting", () => {
  test("what was not handed out is given back, and what comes again is judged by the record", async () => {
    const { handle, open } = gate();
    const bench = new Bench(handle);
    await bench.deliver(1);
    await bench.deliver(2);
    await bench.deliver(9);
    bench.consumer.forget();
    expect(bench.told.sort()).toEqual(["5.2: returned", "5.9: returned"]);
    await bench.deliver(1); // delivered again while its handler is still at it
    await open();
    await bench.deliver(2);
    await open();
    expect(bench.handled).toEqual(["5.1", "5.2"]);
    expect(bench.kinds()).toEqual(["handled", "duplicate", "handled"]);
  });

  test("a mark that was read before is not believed afterwards", async () => {
    const bench = new Bench();
    let resolveLoad: (mark: Mark | undefined) => void = () => {};
    vi.spyOn(bench.highWater, "load").mockImplementationOnce(
      () =>
        new Promise((resolve) => {
          resolveLoad = resolve;
        }),
    );
    await bench.deliver(1);
    bench.consumer.forget();
    await bench.highWater.save("k", { token: 5, sequence: 1 }); // by the one who had the key meanwhile
    await bench.deliver(2);
    resolveLoad(undefined);
    await settled();
    expect(bench.handled).toEqual(["5.2"]);
  });

  test("of one source: what came from others stays", async () => {
    const bench = new Bench();
    const [a, b] = [{}, {}];
    await bench.deliver(2, { key: "a", source: a });
    await bench.deliver(2, { key: "b", source: b });
    bench.consumer.forget(a);
    expect(bench.told).toEqual(["a 5.2: returned"]);
    await bench.deliver(1, { key: "b", source: b });
    expect(bench.handled).toEqual(["b 5.1", "b 5.2"]);
  });

  test("reset forgets the record and lets old producers in again", async () => {
    const bench = new Bench();
    await bench.deliver(1, { token: 1_000 });
    await bench.consumer.reset("k");
    expect((await bench.consumer.inspect("k")).floor).toBe(0);
    await bench.deliver(1, { token: 1 });
    expect(bench.handled).toEqual(["1000.1", "1.1"]);
  });
});

import { describe, expect, it } from "vitest";
import { StreamTimes } from "../../src/server/rpc/stream-times.js";
import { grant, lock } from "./support.js";

type Requests = Parameters<StreamTimes["begin"]>[0];

const command = (seq: number, kind: string, more: object = {}) =>
  ({ seq, request: { kind, ...more } }) as Requests[number];
const refused = (reason: "STALE_TOKEN" | "INVALID") => ({ kind: "refused", reason, message: "" }) as const;

function record(waitingMax = 8_192) {
  const results: [rpc: string, reason: string][] = [];
  const durationsMs: number[] = [];
  const times = new StreamTimes((rpc, reason, durationMs) => {
    results.push([rpc, reason]);
    durationsMs.push(durationMs);
  }, waitingMax);
  return { times, results, durationsMs };
}

/** Waits for real, but not long: by the clock that is measured with. */
function spend(ms: number): void {
  for (const endMs = performance.now() + ms; performance.now() < endMs; );
}

describe("the times of a stream", () => {
  it("are from the frame to the result, by what was asked for, and how it ended", () => {
    const { times, results, durationsMs } = record();
    times.hello();
    times.answered(0, { kind: "welcome", sessionId: "s", epoch: 1, resumed: false, lost: [] });
    const items = { all: false };
    times.begin([command(1, "acquire", items), command(2, "acquire", { all: true }), command(3, "release")]);
    times.begin([{ seq: 4, request: refused("INVALID") }, command(5, "describeLock")]);
    times.answered(3, refused("STALE_TOKEN"));
    times.answered(4, refused("INVALID"));
    times.answered(5, { kind: "lock", lock: lock("a") });
    times.flushed();
    spend(12);
    times.answered(2, grant);
    times.answered(1, grant);
    expect(results).toEqual([
      ["Attach", "OK"],
      ["Release", "STALE_TOKEN"],
      ["other", "INVALID"],
      ["DescribeLock", "OK"],
      ["AcquireAll", "OK"],
      ["Acquire", "OK"],
    ]);
    for (const durationMs of durationsMs.slice(0, 4)) expect(durationMs).toBeLessThan(10);
    for (const durationMs of durationsMs.slice(4)) expect(durationMs).toBeGreaterThanOrEqual(12);
  });

  it("are told once, and not of commands that another stream has brought", () => {
    const { times, results } = record();
    times.begin([command(9, "tick")]);
    for (const seq of [9, 9, 25, 1]) times.answered(seq, { kind: "tick", first: 1, last: 1 } as never);
    expect(results).toEqual([["Tick", "OK"]]);
  });

  it("are told of what the server did not take", () => {
    const { times, results } = record();
    const requests = [command(1, "validate"), command(2, "listLocks")];
    times.begin(requests);
    times.notTaken(requests, "LIMIT");
    expect(results).toEqual([
      ["Validate", "LIMIT"],
      ["ListLocks", "LIMIT"],
    ]);
  });

  it("are all told, in whatever order answers come, however many wait meanwhile", () => {
    const seed = Number(process.env.LEASEHOLD_SEED ?? Date.now() % 1e9);
    console.log(`seed ${seed}`);
    let state = seed;
    const random = (below: number) => {
      state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
      return Math.floor((state / 2 ** 32) * below);
    };
    const kinds = { acquire: "Acquire", release: "Release", tick: "Tick", createLease: "CreateLease" } as const;
    const { times, results } = record();
    const open = new Map<number, string>();
    let seq = 0;
    for (let frame = 0; frame < 3_000; frame++) {
      const requests = Array.from({ length: random(40) }, () => {
        const kind = Object.keys(kinds)[random(4)] as keyof typeof kinds;
        open.set(++seq, kinds[kind]);
        return command(seq, kind, { all: false });
      });
      times.begin(requests);
      // Nearly all are answered with the next frames, one in a hundred waits until the end.
      for (const [answered, rpc] of open) {
        if (answered % 100 === 7 || random(3) === 0) continue;
        times.answered(answered, grant);
        expect(results.pop(), `command ${answered}`).toEqual([rpc, "OK"]);
        open.delete(answered);
      }
      times.flushed();
    }
    expect(open.size).toBeGreaterThan(100);
    for (const [left, rpc] of open) {
      times.answered(left, grant);
      expect(results.pop(), `command ${left}`).toEqual([rpc, "OK"]);
    }
    expect(results).toEqual([]);
  });

  it("are not kept of more than a number that wait for long", () => {
    const { times, results } = record(3);
    const waiting = Array.from({ length: 512 }, (_, i) => command(i + 1, "acquire", { all: false }));
    times.begin(waiting);
    times.begin(waiting.map(({ seq }) => command(seq + 512, "tick")));
    for (const { seq } of waiting) times.answered(seq, grant);
    expect(results).toEqual([1, 2, 3].map(() => ["Acquire", "OK"]));
  });
});

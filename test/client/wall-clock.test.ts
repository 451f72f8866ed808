/** What the client tells of its wall clock, and that nothing else of it knows one. */
import { readdirSync, readFileSync } from "node:fs";
import { join, relative } from "node:path";
import { fileURLToPath } from "node:url";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { type Setup, setup, take, watch } from "./support.js";

const NOON_MS = 1_800_000_000_000;

let wallMs: number;

beforeEach(() => {
  wallMs = NOON_MS;
  vi.spyOn(Date, "now").mockImplementation(() => wallMs);
});

afterEach(() => {
  vi.restoreAllMocks();
});

const frames = (s: Setup) => s.server.connection.frames;
const clocks = (s: Setup) =>
  frames(s).map(({ frame, wallClockMs, roundTripMs, roundTripFrame }) => ({
    frame,
    wallClockMs,
    roundTripMs,
    roundTripFrame,
  }));

describe("the wall clock", () => {
  it("is told in Hello and with every renewal, and in no other frame", async () => {
    const s = setup();
    const lock = await take(s);
    await s.time.advance(12_000);
    const released = watch(lock.release());
    await s.time.settle();
    expect(released.settled).toBe(true);
    const kinds = frames(s).map(({ hello, renew, wallClockMs }) => [Boolean(hello) || renew, wallClockMs === NOON_MS]);
    expect(kinds.filter(([due]) => due).length).toBeGreaterThanOrEqual(3);
    expect(kinds.filter(([due]) => !due).length).toBeGreaterThanOrEqual(2);
    for (const [due, told] of kinds) expect(told).toBe(due);
  });

  it("is read when the frame is made", async () => {
    const s = setup();
    await take(s);
    wallMs += 5_000_000;
    await s.time.advance(5_001);
    expect(frames(s).findLast(({ renew }) => renew)?.wallClockMs).toBe(NOON_MS + 5_000_000);
  });

  it("is not told when it is before 1970: the wire has no such number", async () => {
    wallMs = -5;
    const s = setup();
    await take(s);
    expect(frames(s)[0]?.wallClockMs).toBe(0);
  });

  it("is told anew on the next stream, whose frames have numbers of their own", async () => {
    const s = setup();
    await take(s);
    await s.time.advance(5_001);
    s.server.connection.break();
    await s.time.advance(3_000);
    expect(s.server.connections.length).toBe(2);
    expect(clocks(s)[0]).toEqual({ frame: 1, wallClockMs: NOON_MS, roundTripMs: 0, roundTripFrame: 0 });
  });
});

describe("the round trip", () => {
  it("is that of the last frame which told the clock, rounded up, and told once", async () => {
    const s = setup();
    s.server.onHello = () => undefined;
    const held = watch(s.client.acquire("a"));
    await s.time.advance(30.2);
    s.server.welcome(s.server.connection);
    await s.time.settle();
    await s.time.settle();
    expect(held.settled).toBe(true);
    expect(clocks(s)).toEqual([
      { frame: 1, wallClockMs: NOON_MS, roundTripMs: 0, roundTripFrame: 0 },
      { frame: 2, wallClockMs: 0, roundTripMs: 31, roundTripFrame: 1 },
    ]);
    await s.time.advance(5_001); // a renewal, answered in no time
    await s.time.advance(5_001);
    const [, , third, fourth] = clocks(s);
    expect(third).toEqual({ frame: 3, wallClockMs: NOON_MS, roundTripMs: 0, roundTripFrame: 0 });
    expect(fourth).toEqual({ frame: 4, wallClockMs: NOON_MS, roundTripMs: 1, roundTripFrame: 3 });
  });

  it("ends with the first frame that echoes this one or a later one, and no earlier", async () => {
    const s = setup();
    await take(s);
    s.server.renews = false;
    await s.time.advance(5_001);
    const { frame } = s.server.connection.lastFrame;
    expect(s.server.connection.lastFrame.renew).toBe(true);
    s.server.connection.push({ frame: frame - 1 });
    await s.time.advance(100);
    s.server.connection.push({ frame });
    await s.time.advance(50);
    s.server.connection.push({ frame });
    await take(s, "b");
    const told = clocks(s).find(({ roundTripFrame }) => roundTripFrame === frame);
    expect(told?.roundTripMs).toBeGreaterThanOrEqual(100);
    expect(told?.roundTripMs).toBeLessThanOrEqual(102);
  });

  it("of a frame that was not answered is not told", async () => {
    const s = setup({ ttlMs: 60_000 });
    await take(s);
    s.server.renews = false;
    s.server.answers = {};
    await s.time.advance(20_001);
    const unanswered = s.server.connection.lastFrame.frame;
    await s.time.advance(6_100); // it is repeated
    expect(s.server.connection.lastFrame.frame).toBe(unanswered + 1);
    expect(clocks(s).at(-1)).toMatchObject({ wallClockMs: NOON_MS, roundTripMs: 0, roundTripFrame: 0 });
  });
});

describe("nothing is decided by it", () => {
  const history = async (jumps: boolean): Promise<unknown> => {
    const s = setup({ ttlMs: 6_000 });
    const seen: unknown[] = [];
    const lock = await take(s, "a", { maxHold: "40s" });
    lock.on("lost", (reason) => void seen.push(["lost", reason]));
    const queued = watch(s.client.acquire("b", { wait: "20s" }));
    for (let i = 0; i < 30; i++) {
      if (jumps) wallMs += i % 3 === 0 ? -7_200_000 : 5_400_000;
      if (i === 12) s.server.connection.break();
      await s.time.advance(1_500);
      seen.push([lock.state.is, lock.held, queued.settled, s.server.connections.length]);
    }
    const told = s.server.connections.flatMap((c) => c.frames);
    return { seen, frames: told.map((frame) => ({ ...frame, wallClockMs: frame.wallClockMs > 0 })) };
  };

  it("with a wall clock that jumps by hours the client does and believes the very same", async () => {
    const expected = await history(false);
    expect(await history(true)).toEqual(expected);
    expect(JSON.stringify(expected)).toContain('"lost"');
  });

  const root = fileURLToPath(new URL("../..", import.meta.url));
  const sources = (folder: string) =>
    readdirSync(join(root, folder), { withFileTypes: true, recursive: true })
      .filter((entry) => entry.isFile() && entry.name.endsWith(".ts") && !entry.name.endsWith(".d.ts"))
      .map((entry) => relative(root, join(entry.parentPath, entry.name)))
      .filter((path) => !/(^|\/)(dist|gen|node_modules)\//.test(path));
  const code = (path: string) => readFileSync(join(root, path), "utf8").replace(/\/\*[\s\S]*?\*\/|\/\/.*$/gm, "");
  const matching = (folder: string, pattern: RegExp) => sources(folder).filter((path) => pattern.test(code(path)));
  const WALL = /\bDate\b|\btimeOrigin\b/;

  it("one file of the client reads the wall clock, and only what puts frames together knows that file", () => {
    expect(matching("src/client", WALL)).toEqual(["src/client/session/wall-clock.ts"]);
    expect(matching("src/client", /wall-clock\.js/)).toEqual(["src/client/session/sender.ts"]);
    expect(matching("src/client", /wallClock(?!Ms)/)).toEqual(["src/client/session/sender.ts"]);
    expect(matching("src/client", /wallClockMs/)).toEqual(["src/client/session/wall-clock.ts"]);
  });

  it("what decides on the server knows no wall clock, and nothing of what clients tell of theirs", () => {
    for (const folder of ["src/server/core", "src/server/sequencer", "src/server/journal"]) {
      expect(matching(folder, WALL)).toEqual([]);
      expect(matching(folder, /wallClock|roundTrip|skew/i)).toEqual([]);
    }
  });

  it("of the server, only what tells people knows how clocks differ", () => {
    const importers = matching("src", /from "[^"]*\/skew\/[^"]+"/).filter((path) => !/^src\/server\/skew\//.test(path));
    expect(importers.sort()).toEqual([
      "src/server/metrics/server-metrics.ts",
      "src/server/rpc/frames.ts",
      "src/server/rpc/grpc-server.ts",
      "src/server/rpc/session.ts",
      "src/server/rpc/status.ts",
      "src/server/rpc/unary-clock.ts",
      "src/server/rpc/unary-methods.ts",
      "src/server/rpc/unary.ts",
      "src/server/server.ts",
    ]);
  });
});

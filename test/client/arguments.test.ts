/** What callers may pass in, and what they are told when it is wrong. */
import { status as grpcStatus, Metadata } from "@grpc/grpc-js";
import { describe, expect, it } from "vitest";
import { parseAddress, parseTarget } from "../../src/client/address.js";
import { connect } from "../../src/client/connect.js";
import { type Duration, durationMs } from "../../src/client/duration.js";
import { LeaseholdError } from "../../src/client/errors.js";
import { encodeStatus } from "../../src/client/wire/index.js";
import { setup, take, thrown } from "./support.js";

describe("durations", () => {
  it.each([
    [0, 0],
    [1_500, 1_500],
    ["500ms", 500],
    ["15s", 15_000],
    ["1.5s", 1_500],
    ["0.1s", 100],
    ["30m", 1_800_000],
    ["24h", 86_400_000],
  ] as [Duration, number][])("%j is %d ms", (duration, ms) => {
    expect(durationMs(duration, "it")).toBe(ms);
  });

  it.each([
    -1,
    1.5,
    Number.NaN,
    Number.POSITIVE_INFINITY,
    "15",
    "s",
    "-1s",
    "1 s",
    "1d",
    "1e3s",
    "0.5ms",
    "",
    null,
    true,
    {},
    5n,
    `${"9".repeat(15)}h`,
  ])("%s is none", (duration) => {
    expect(thrown(() => durationMs(duration as Duration, "the wait")).message).toMatch(
      /^the wait must be whole milliseconds or text/,
    );
  });
});

describe("names", () => {
  it.each(["", "a\0b", "a\nb", "a\x7fb", "a\x85b", "\ud800", "x".repeat(513), "ä".repeat(257), 5, null, undefined, {}])(
    "%j is none",
    async (name) => {
      const s = setup();
      for (const call of [
        () => s.client.acquire(name as string),
        () => s.client.tryAcquire(name as string),
        () => s.client.withLock(name as string, () => 1),
        () => s.client.describe(name as string),
        () => s.client.validate(name as string, 1),
      ]) {
        await expect(call()).rejects.toMatchObject({ code: "INVALID" });
      }
      expect(s.server.connections).toHaveLength(0);
    },
  );

  it.each(["a", "x".repeat(512), "ä".repeat(256), "日本/🔒", "with space"])("%j is one", async (name) => {
    expect((await take(setup(), name)).name).toBe(name);
  });
});

describe("options", () => {
  it("that do not exist name the nearest that does", async () => {
    const s = setup();
    const wrong = (options: object) =>
      s.client.acquire("a", options).then(() => new Error("taken"), LeaseholdError.from);
    expect((await wrong({ wiat: 5 })).message).toBe('the options of an acquire have no "wiat"; did you mean "wait"?');
    expect((await wrong({ onqueued: 5 })).message).toMatch(/did you mean "onQueued"\?/);
    expect((await wrong({ metaData: "" })).message).toMatch(/did you mean "metadata"\?/);
    await expect(s.client.tryAcquire("a", { wait: 5 } as never)).rejects.toMatchObject({ code: "INVALID" });
    await expect(s.client.lease({ tll: 5 } as never)).rejects.toThrow(/did you mean "ttl"/);
    await expect(s.client.close({ timeut: 5 } as never)).rejects.toThrow(/did you mean "timeout"/);
    await expect(connect("localhost:1", { ownr: "x" } as never)).rejects.toThrow(/did you mean "owner"/);
    expect(s.server.connections).toHaveLength(0);
  });

  it.each([
    { wait: "1 hour" },
    { wait: -1 },
    { ttl: 0 },
    { signal: {} },
    { lease: {} },
    { owner: "a\nb" },
    { owner: "x".repeat(257) },
    { metadata: "x".repeat(4_097) },
    { metadata: 5 },
    { onQueued: 5 },
    null,
    5,
  ])("%j are wrong", async (options) => {
    await expect(setup().client.acquire("a", options as never)).rejects.toMatchObject({ code: "INVALID" });
  });

  it("that are undefined count as absent", async () => {
    const s = setup();
    const nothing = {
      wait: undefined,
      signal: undefined,
      lease: undefined,
      ttl: undefined,
      owner: undefined,
      metadata: undefined,
    };
    expect((await take(s, "a", nothing)).token).toBe(1);
  });

  it("a lease of another client's, and a lease together with a TTL, are refused", async () => {
    const [s, other] = [setup(), setup()];
    const made = other.client.lease();
    await other.time.settle();
    const lease = await made;
    await expect(s.client.acquire("a", { lease })).rejects.toThrow(/one of this client's/);
    await expect(other.client.acquire("a", { lease, ttl: "1s" })).rejects.toThrow(/not both/);
  });

  it("tokens are whole numbers", async () => {
    const s = setup();
    for (const token of [-1, 1.5, 2 ** 53, "1", Number.NaN, 1n]) {
      await expect(s.client.validate("a", token as number)).rejects.toMatchObject({ code: "INVALID" });
    }
  });
});

describe("addresses", () => {
  it.each([
    ["localhost", "localhost:7420", "dns:localhost:7420", true],
    ["127.0.0.1:1", "127.0.0.1:1", "dns:127.0.0.1:1", true],
    ["[::1]:7", "[::1]:7", "dns:[::1]:7", true],
    ["::1", "[::1]:7420", "dns:[::1]:7420", true],
    ["lock-1.example.com:99", "lock-1.example.com:99", "dns:lock-1.example.com:99", false],
    ["10.0.0.1", "10.0.0.1:7420", "dns:10.0.0.1:7420", false],
    ["unix:/run/l.sock", "unix:/run/l.sock", "unix:/run/l.sock", true],
    ["unix:///run/l.sock", "unix:///run/l.sock", "unix:/run/l.sock", true],
  ])("%s", (text, shown, target, local) => {
    expect(parseAddress(text)).toEqual({ text: shown, target, local });
  });

  it.each([
    "",
    ":7420",
    "host:",
    "host:0",
    "host:65536",
    "host:1:2",
    "[::1",
    "[host]:1",
    "http://x",
    "1.2.3:5",
    "256.1.1.1",
    "unix:",
    "a b",
  ])("%j is none", (text) => {
    expect(thrown(() => parseAddress(text)).code).toBe("INVALID");
  });

  it("come in lists", () => {
    expect(parseTarget("a:1, b:2").map((address) => address.text)).toEqual(["a:1", "b:2"]);
    expect(parseTarget(["a:1", "b:2"]).map((address) => address.text)).toEqual(["a:1", "b:2"]);
    expect(thrown(() => parseTarget([])).code).toBe("INVALID");
    expect(thrown(() => parseTarget([5] as never)).code).toBe("INVALID");
  });
});

describe("errors", () => {
  it("are recognised across copies of the package, by brand and code", () => {
    const error = new LeaseholdError("BUSY", "x");
    expect(LeaseholdError.is(error)).toBe(true);
    expect(LeaseholdError.is(error, "BUSY")).toBe(true);
    expect(LeaseholdError.is(error, "LOST")).toBe(false);
    const copy = Object.defineProperty(Object.assign(new Error("y"), { code: "LOST" }), Symbol.for("leasehold.error"), {
      value: true,
    });
    expect(LeaseholdError.is(copy, "LOST")).toBe(true);
    for (const other of [null, undefined, 5, "x", new Error("z"), { code: "BUSY" }])
      expect(LeaseholdError.is(other)).toBe(false);
  });

  it("are made of gRPC errors by the server's reason, else by the status", () => {
    const details = new Metadata();
    details.set(
      "grpc-status-details-bin",
      encodeStatus({ code: 8, message: "full", reason: "LIMIT", retryAfterMs: 1_500 }),
    );
    const rich = Object.assign(new Error("8"), {
      code: grpcStatus.RESOURCE_EXHAUSTED,
      details: "x",
      metadata: details,
    });
    expect(LeaseholdError.from(rich)).toMatchObject({
      code: "LIMIT",
      message: "full",
      retryAfterMs: 1_500,
      cause: rich,
    });
    const plain = new Metadata();
    plain.set("leasehold-reason", "STORE_DOWN");
    expect(LeaseholdError.from(Object.assign(new Error("x"), { code: 14, metadata: plain }))).toMatchObject({
      code: "STORE_DOWN",
    });
    expect(LeaseholdError.from(Object.assign(new Error("x"), { code: 7 }))).toMatchObject({ code: "DENIED" });
    expect(LeaseholdError.from(Object.assign(new Error("x"), { code: 12 }))).toMatchObject({ code: "INTERNAL" });
    expect(LeaseholdError.from("text")).toMatchObject({ code: "INTERNAL", message: "text", cause: "text" });
    const same = new LeaseholdError("LOST", "x");
    expect(LeaseholdError.from(same)).toBe(same);
  });

  it("UNKNOWN_LEASE is a loss, UNKNOWN_SESSION is one, CLUSTER_MISMATCH keeps its name", () => {
    const of = (reason: string) => {
      const trailers = new Metadata();
      trailers.set("leasehold-reason", reason);
      return LeaseholdError.from(Object.assign(new Error("x"), { code: 5, metadata: trailers }));
    };
    expect(of("UNKNOWN_LEASE")).toMatchObject({ code: "LOST", reason: "UNKNOWN_LEASE" });
    expect(of("UNKNOWN_SESSION")).toMatchObject({ code: "LOST" });
    expect(of("CLUSTER_MISMATCH")).toMatchObject({ code: "INVALID", reason: "CLUSTER_MISMATCH" });
  });
});

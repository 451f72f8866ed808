import { statSync } from "node:fs";
import { Metadata, status } from "@grpc/grpc-js";
import { decode, encode, encodeStatus, v1, type leasehold as wire } from "@leasehold/client/wire";
import { afterEach, describe, expect, it } from "vitest";
import { type FakeServer, fakeServer, leasehold, type Method, program } from "./support.js";

const LIST = "/leasehold.v1.LockService/ListLocks";
const DESCRIBE = "/leasehold.v1.LockService/DescribeLock";
const STATUS = "/leasehold.v1.AdminService/Status";
const TICK = "/leasehold.v1.ClockService/Tick";

let server: FakeServer | undefined;

afterEach(() => {
  server?.stop();
  server = undefined;
});

async function addr(methods: Readonly<Record<string, Method>>): Promise<string> {
  server = await fakeServer(methods);
  return server.address;
}

function refuse(code: status, reason: string, message: string): never {
  const metadata = new Metadata();
  metadata.set("grpc-status-details-bin", encodeStatus({ code, reason, message }));
  throw { code, details: message, metadata };
}

const { LOCK_MODE_EXCLUSIVE, LOCK_MODE_SEMAPHORE, LOCK_MODE_SHARED } = v1.LockMode;

const holder: wire.v1.Holder.$Properties = {
  token: 7,
  timestamp: 42,
  owner: "billing\u001b[31m/1",
  metadata: Buffer.from("meta"),
  heldMs: 12_340,
  leaseRemainingMs: 8_100,
  leaseDisplayId: "l-1",
  mode: LOCK_MODE_EXCLUSIVE,
};
const holderAsJson = {
  ...holder,
  metadata: Buffer.from("meta").toString("base64"),
  metadataText: "meta",
  mode: "exclusive",
  permits: 0,
  permitLimit: 0,
  slots: [],
  maxHoldRemainingMs: 0,
  revoking: false,
  contenderId: "",
};
const permits = (token: number, taken: number, limit: number): wire.v1.Holder.$Properties => ({
  ...{ token, owner: `w/${token}`, heldMs: 5, leaseRemainingMs: 1_000, mode: LOCK_MODE_SEMAPHORE },
  ...{ permits: taken, permitLimit: limit, slots: [token, token + 1].slice(0, taken) },
});

/** Pages of two, over five locks. */
const listLocks: Method = (bytes) => {
  const { pageToken, prefix, pageSize } = decode(v1.ListLocksRequest, bytes);
  const reader = { ...holder, mode: LOCK_MODE_SHARED, owner: "r", revoking: true };
  const all = [
    { name: `${prefix}a`, holders: [holder], holdersTotal: 1, waiters: 2 },
    { name: `${prefix}b`, reserved: true, waiters: 1 },
    { name: `${prefix}ccccc`, holders: [{ ...holder, token: 12_345, owner: "" }], holdersTotal: 1 },
    { name: `${prefix}d`, delayRemainingMs: 3_000, waiters: 1 },
    { name: `${prefix}e`, holders: [permits(1, 2, 5), permits(2, 1, 4)], holdersTotal: 2 },
    { name: `${prefix}f`, holders: [reader, reader], holdersTotal: 12 },
  ];
  const from = Number(pageToken || 0);
  const to = from + Math.min(2, pageSize);
  return encode(v1.ListLocksResponse, { locks: all.slice(from, to), nextPageToken: to < all.length ? String(to) : "" });
};

it("is a program that can be started as it stands, as npx does in a clone", () => {
  expect(statSync(program).mode & 0o111).toBe(0o111);
});

describe("locks", () => {
  it("is a table over all pages", async () => {
    const { code, stdout, stderr } = await leasehold(["locks", "p/", "--addr", await addr({ [LIST]: listLocks })]);
    expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
    expect(stdout).toBe(
      [
        "NAME     MODE           HOLDERS  TOKEN  OWNER                       HELD  LEASE ENDS IN  WAITING",
        "p/a      exclusive            1      7  billing\\u{1b}[31m/1        12.3s           8.1s        2",
        "p/b      -                    0      -  (reserved)                     -              -        1",
        "p/ccccc  exclusive            1  12345  -                          12.3s           8.1s        0",
        "p/d      -                    0      -  (delayed for 3.0s)             -              -        1",
        "p/e      semaphore 3/4        2      1  w/1, ...                     5ms           1.0s        0",
        "p/f      shared              12      7  r, ... (being taken away)  12.3s           8.1s        0",
        "",
      ].join("\n"),
    );
  });

  it("stops at its limit and says so", async () => {
    const address = await addr({ [LIST]: listLocks });
    const { stdout } = await leasehold(["locks", "--limit", "2", "--addr", address]);
    expect(stdout).toContain("... and more: give a longer prefix, or --limit above 2\n");
    const asJson = JSON.parse((await leasehold(["locks", "--limit=1", "--json"], { LEASEHOLD_ADDR: address })).stdout);
    expect(asJson).toMatchObject({ truncated: true, locks: [{ name: "a" }] });
    expect(asJson.locks).toHaveLength(1);
  });

  it("is JSON for programs", async () => {
    const { stdout } = await leasehold(["locks", "--json", "--addr", await addr({ [LIST]: listLocks })]);
    const { locks, truncated } = JSON.parse(stdout);
    expect(truncated).toBe(false);
    const free = { holders: [], holdersTotal: 0, waiters: 1, reserved: false, delayRemainingMs: 0 };
    expect(locks[0]).toEqual({ ...free, name: "a", holders: [holderAsJson], holdersTotal: 1, waiters: 2 });
    expect(locks[1]).toEqual({ ...free, name: "b", reserved: true });
    expect(locks[3]).toEqual({ ...free, name: "d", delayRemainingMs: 3_000 });
    expect(locks[4].holders[0]).toMatchObject({ mode: "semaphore", permits: 2, permitLimit: 5, slots: [1, 2] });
  });

  it("says when there is nothing", async () => {
    const address = await addr({ [LIST]: () => encode(v1.ListLocksResponse, {}) });
    expect((await leasehold(["locks", "--addr", address])).stdout).toBe("no locks\n");
    expect((await leasehold(["locks", "x", "--addr", address])).stdout).toBe("no locks that begin with x\n");
  });
});

describe("locks describe", () => {
  const waiters: wire.v1.Waiter.$Properties[] = [
    {
      ...{ ticketId: "T1", position: 1, owner: "w1", waitedMs: 1_500, attached: true, mode: LOCK_MODE_EXCLUSIVE },
      blockedBy: { lock: "orders/42", token: 7, owner: "me", hops: 1 },
    },
    {
      ...{ ticketId: "T2", position: 2, owner: "", waitedMs: 20, attached: false, mode: LOCK_MODE_SHARED, locks: 3 },
      blockedBy: { lock: "orders/43", token: 9, owner: "other", hops: 2 },
    },
    {
      ...{ ticketId: "T3", position: 3, owner: "w3", waitedMs: 20, attached: true, mode: LOCK_MODE_SEMAPHORE },
      ...{ permits: 2, permitLimit: 5, blockedBy: { lock: "orders/42", ticketId: "T2", hops: 1 } },
    },
    { ticketId: "T4", position: 4, owner: "w4", attached: true, blockedBy: { lock: "x", hops: 3 } },
  ];
  const describeLock: Method = (bytes) => {
    const { name } = decode(v1.DescribeLockRequest, bytes);
    if (name === "free") return encode(v1.DescribeLockResponse, { name });
    if (name === "delayed") return encode(v1.DescribeLockResponse, { name, delayRemainingMs: 2_500 });
    if (name === "reserved") return encode(v1.DescribeLockResponse, { name, reserved: true });
    if (name === "permits") {
      const holders = [
        { ...permits(3, 2, 5), maxHoldRemainingMs: 60_000, revoking: true, contenderId: "c1" },
        { ...permits(6, 1, 5), metadata: Buffer.from([0xff, 0]) },
      ];
      return encode(v1.DescribeLockResponse, { name, holders, holdersTotal: 120 });
    }
    return encode(v1.DescribeLockResponse, { name, holders: [{ ...holder, owner: "me" }], waiters, waitersTotal: 6 });
  };

  it("tells who holds, who waits, and for whom", async () => {
    const args = ["locks", "describe", "orders/42", "--addr", await addr({ [DESCRIBE]: describeLock })];
    const { stdout } = await leasehold(args);
    expect(stdout).toBe(
      [
        "orders/42",
        "held by me for 12.3s, exclusive, token 7, timestamp 42",
        "  lease l-1 ends in 8.1s unless renewed",
        "  metadata meta",
        "6 waiters",
        "#  TICKET  OWNER  MODE                    WAITED  CONNECTED  BLOCKED BY",
        "1  T1      w1     exclusive                 1.5s  yes        token 7 (me)",
        "2  T2      -      shared, one of 3 locks    20ms  no         token 9 of orders/43 (other), 2 hops",
        "3  T3      w3     2 of 5 permits            20ms  yes        ticket T2, not connected",
        "4  T4      w4     exclusive                  0ms  yes        the lock delay of x, 3 hops",
        "... and 2 more",
        "",
      ].join("\n"),
    );
  });

  it("tells of permits, of a maximum hold, and of what is being taken away", async () => {
    const { stdout } = await leasehold([
      "locks",
      "describe",
      "permits",
      "--addr",
      await addr({ [DESCRIBE]: describeLock }),
    ]);
    expect(stdout).toBe(
      [
        "permits",
        "held by w/3 for 5ms, 2 of 5 permits, token 3, timestamp 0",
        "  lease  ends in 1.0s unless renewed",
        "  slots 3, 4",
        "  maximum hold: ends in 1m, renewed or not",
        "  being taken away: ends when its holder confirms, or has been promised no more",
        "  contender c1",
        "held by w/6 for 5ms, 1 of 5 permits, token 6, timestamp 0",
        "  lease  ends in 1.0s unless renewed",
        "  slot 6",
        "  metadata 2 bytes in base64: /wA=",
        "... and 118 more holders",
        "nobody waits",
        "",
      ].join("\n"),
    );
  });

  it("takes its options on either side, and is JSON for programs", async () => {
    const address = await addr({ [DESCRIBE]: describeLock });
    const before = await leasehold(["locks", "--json", "--addr", address, "describe", "x"]);
    const behind = await leasehold(["locks", "describe", "x", "--json", "--addr", address]);
    expect(behind).toEqual(before);
    const { holders, waiters: listed, ...lock } = JSON.parse(behind.stdout);
    expect(lock).toEqual({ name: "x", holdersTotal: 1, reserved: false, delayRemainingMs: 0, waitersTotal: 6 });
    expect(holders).toEqual([{ ...holderAsJson, owner: "me" }]);
    expect(listed[1]).toEqual({
      ...{ ticketId: "T2", position: 2, owner: "", metadata: "", metadataText: "", waitedMs: 20, attached: false },
      ...{ mode: "shared", permits: 0, permitLimit: 0, locks: 3, contenderId: "" },
      blockedBy: { lock: "orders/43", token: 9, ticketId: null, owner: "other", hops: 2 },
    });
  });

  it.each([
    ["free", "free"],
    ["delayed", "free, but its lock delay runs for another 2.5s"],
    ["reserved", "free, but reserved for the first in its queue"],
  ])("%s: it says so", async (name, text) => {
    const address = await addr({ [DESCRIBE]: describeLock });
    const { stdout } = await leasehold(["locks", "describe", name], { LEASEHOLD_ADDR: address });
    expect(stdout).toBe(`${name}\n${text}\nnobody waits\n`);
  });
});

describe("status", () => {
  const message = {
    version: "1.2.3",
    clusterId: "abc",
    store: "level",
    serving: false,
    notServingReason: "the journal is down",
    uptimeMs: 10_920_000,
    incarnation: 4,
    lastToken: 1_234_567,
    timestamp: 99,
    leases: 1,
    locks: 2_000,
    holds: 3,
    waiters: 4,
    sessions: 5,
    commandsInFlight: 6,
    journalLogBytes: 2_048,
    journalCheckpointLagRecords: 7,
  };

  it("is a list for people and JSON for programs", async () => {
    const address = await addr({ [STATUS]: () => encode(v1.StatusResponse, message) });
    const { stdout } = await leasehold(["status", "--addr", address]);
    expect(stdout).toContain(`server      1.2.3 at ${address}, up for 3h2m\n`);
    expect(stdout).toContain("serving     no: the journal is down\n");
    expect(stdout).toContain("locks       2,000 (3 held, 4 waiting)\n");
    expect(stdout).toContain("last token  1234567\n");
    expect(stdout).not.toContain("clocks");
    const asJson = JSON.parse((await leasehold(["status", "--json", "--addr", address])).stdout);
    expect(asJson).toEqual({ ...message, clockSkew: null });
  });

  const statusWith = async (clockSkew: wire.v1.ClockSkew.$Properties) => {
    const address = await addr({ [STATUS]: () => encode(v1.StatusResponse, { ...message, clockSkew }) });
    const { stdout } = await leasehold(["status", "--addr", address]);
    const asJson = JSON.parse((await leasehold(["status", "--json", "--addr", address])).stdout);
    return { clocks: stdout.slice(stdout.indexOf("\nclocks") + 1), asJson: asJson.clockSkew };
  };

  it("names the clients whose clock is off", async () => {
    const clients = [
      { owner: "billing/7f9c", client: "sdk 1", offsetMs: 12_300, errorMs: 2, measuredAgoMs: 4_100 },
      { owner: "a\u001b[31mb", client: "sdk 1", offsetMs: -3_720_000, errorMs: 35, measuredAgoMs: 900 },
      { leaseDisplayId: "L000000001", offsetMs: 2_000, errorMs: 0, measuredAgoMs: 0 },
      { owner: "py/1", leaseDisplayId: "L000000002", offsetMs: -90_000, errorMs: 0, measuredAgoMs: 60_000 },
      { client: "sdk 1", offsetMs: 600, errorMs: 1, measuredAgoMs: 1 },
      { offsetMs: 600, errorMs: 1, measuredAgoMs: 1 },
    ];
    const { clocks, asJson } = await statusWith({ measured: 20, skewed: 9, warnMs: 500, clients });
    expect(clocks).toBe(
      [
        "clocks      9 of 20 clients off by more than 500ms",
        "            billing/7f9c is 12.3s ahead (±2ms), measured 4.1s ago",
        "            a\\u{1b}[31mb is 1h2m behind (±35ms), measured 900ms ago",
        "            the owner of lease L000000001 is at least 2.0s ahead, measured 0ms ago",
        "            py/1 is about 1m30s behind, measured 1m ago",
        "            a client with sdk 1 is 600ms ahead (±1ms), measured 1ms ago",
        "            a client without a name is 600ms ahead (±1ms), measured 1ms ago",
        "            and 3 more",
        "",
      ].join("\n"),
    );
    expect(asJson).toMatchObject({ measured: 20, skewed: 9, warnMs: 500, serverAheadMs: 0 });
    expect(asJson.clients[1]).toEqual({ ...clients[1], leaseDisplayId: "" });
    expect(asJson.clients).toHaveLength(6);
  });

  it("says so when it is the server's clock that is probably off", async () => {
    const skew = { measured: 7, skewed: 6, warnMs: 1_500, clients: [], serverAheadMs: -3_600_000 };
    const { clocks, asJson } = await statusWith(skew);
    expect(clocks).toBe(
      [
        "clocks      6 of 7 clients off by more than 1.5s",
        "            most agree that this server is 1h behind: its clock is probably the one that is off",
        "            and 6 more",
        "",
      ].join("\n"),
    );
    expect(asJson).toEqual(skew);
  });

  it("says when all clocks are right, or none is told", async () => {
    const { clocks } = await statusWith({ measured: 2, warnMs: 500 });
    expect(clocks).toBe("clocks      2 clients measured, none is off by more than 500ms\n");
    const none = await statusWith({ warnMs: 500 });
    expect(none.clocks).toBe("clocks      no client tells its wall clock\n");
    expect(none.asJson).toEqual({ measured: 0, skewed: 0, warnMs: 500, serverAheadMs: 0, clients: [] });
  });
});

describe("tick", () => {
  const tick: Method = (bytes) => {
    const { observed, count } = decode(v1.TickRequest, bytes);
    if (observed > 1_000_000) return refuse(status.OUT_OF_RANGE, "CLOCK_JUMP", "too far ahead");
    return encode(v1.TickResponse, { first: observed + 1, last: observed + count });
  };

  it("prints what it got", async () => {
    const address = await addr({ [TICK]: tick });
    expect((await leasehold(["tick", "--addr", address])).stdout).toBe("1\n");
    expect((await leasehold(["tick", "5", "--observed", "10", "--addr", address])).stdout).toBe("11..15\n");
    expect(JSON.parse((await leasehold(["tick", "5", "--json", "--addr", address])).stdout)).toEqual({
      first: 1,
      last: 5,
    });
    const refused = await leasehold(["tick", "--observed", "9000000", "--addr", address]);
    expect(refused).toEqual({ code: 64, stdout: "", stderr: "too far ahead (CLOCK_JUMP)\n" });
  });
});

describe("the address", () => {
  it("may be several: the first that can be reached", async () => {
    const gone = await fakeServer({});
    gone.stop();
    const address = await addr({ [STATUS]: () => encode(v1.StatusResponse, { version: "9" }) });
    const { code, stdout } = await leasehold(["status", "--addr", `${gone.address}, ${address}`]);
    expect([code, stdout]).toEqual([0, expect.stringContaining(`9 at ${address}`)]);
  });

  it("is not another one when the first has answered", async () => {
    const other = await fakeServer({ [STATUS]: () => encode(v1.StatusResponse, {}) });
    const address = await addr({ [STATUS]: () => refuse(status.UNAVAILABLE, "STORE_DOWN", "down") });
    expect(await leasehold(["status", "--addr", `${address},${other.address}`])).toMatchObject({
      code: 69,
      stderr: "down (STORE_DOWN)\n",
    });
    other.stop();
  });

  it("needs no port", async () => {
    const { stderr } = await leasehold(["status", "--addr", "host.invalid"]);
    expect(stderr).toMatch(/^cannot reach host\.invalid:7420 /);
  });
});

describe("failures are one line and their own exit code", () => {
  it("unreachable", async () => {
    const stopped = await fakeServer({});
    stopped.stop();
    const stderr = `cannot reach ${stopped.address} (ECONNREFUSED). Start one: npx leasehold serve\n`;
    expect(await leasehold(["status", "--addr", stopped.address])).toEqual({ code: 69, stdout: "", stderr });
    expect(await leasehold(["tick", "--addr", "unix:/does/not/exist.sock"])).toMatchObject({ code: 69 });
  });

  it("refused by the server", async () => {
    const cases: [status, string, number][] = [
      [status.INVALID_ARGUMENT, "INVALID", 64],
      [status.UNAVAILABLE, "STORE_DOWN", 69],
      [status.RESOURCE_EXHAUSTED, "LIMIT", 75],
      [status.PERMISSION_DENIED, "DENIED", 77],
      [status.INTERNAL, "INTERNAL", 70],
    ];
    let at = 0;
    const address = await addr({ [STATUS]: () => refuse(cases[at]![0], cases[at]![1], "so it is\u001b[2J") });
    for (at = 0; at < cases.length; at++) {
      const [, reason, code] = cases[at]!;
      const stderr = `so it is\\u{1b}[2J (${reason})\n`;
      expect(await leasehold(["status", "--addr", address]), reason).toEqual({ code, stdout: "", stderr });
    }
  });

  it("another service on that port", async () => {
    const address = await addr({});
    const stderr = `${address} is no Leasehold server, or one of another version\n`;
    expect(await leasehold(["status", "--addr", address])).toEqual({ code: 70, stdout: "", stderr });
  });

  it("wrong usage names the nearest", async () => {
    const cases: [string[], string][] = [
      [["statsu"], "leasehold: unknown command 'statsu' (Did you mean status?)\n"],
      [["status", "--adr", "x"], "leasehold: unknown option '--adr' (Did you mean --addr?)\n"],
      [["serve", "--lisen", "x"], "leasehold: unknown option '--lisen' (Did you mean --listen?)\n"],
      [
        ["status", "--addr", "x:"],
        "leasehold: option '--addr <host:port>' argument 'x:' is invalid. It is not host:port.\n",
      ],
      [
        ["tick", "1.5"],
        "leasehold: command-argument value '1.5' is invalid for argument 'n'. It is not a whole number.\n",
      ],
      [["locks", "describe"], "leasehold: missing required argument 'name'\n"],
      [["status", "extra"], "leasehold: too many arguments for 'status'. Expected 0 arguments but got 1.\n"],
    ];
    for (const [args, stderr] of cases) expect(await leasehold(args), stderr).toEqual({ code: 64, stdout: "", stderr });
    const wrongEnv = await leasehold(["status"], { LEASEHOLD_ADDR: "non sense" });
    expect(wrongEnv).toMatchObject({ code: 64, stderr: expect.stringMatching(/^leasehold: .*LEASEHOLD_ADDR.*\n$/) });
  });

  it("help is no failure", async () => {
    for (const args of [["--help"], ["help", "serve"], ["locks", "describe", "--help"], ["--version"]]) {
      expect(await leasehold(args), args.join(" ")).toMatchObject({ code: 0, stderr: "" });
    }
    expect(await leasehold([])).toMatchObject({ code: 64, stdout: "", stderr: expect.stringContaining("Usage:") });
  });
});

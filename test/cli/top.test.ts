import { decode, encode, v1 } from "@leasehold/client/wire";
import { describe, expect, onTestFinished, test } from "vitest";
import { type Sample, sampleForJson } from "../../src/cli/top/sample.js";
import { rateText, rowsFor, view } from "../../src/cli/top/view.js";
import { fakeServer, leasehold } from "./support.js";

const { LOCK_MODE_EXCLUSIVE, LOCK_MODE_SEMAPHORE } = v1.LockMode;

const status = {
  ...{ version: "1.2.3", serving: true, uptimeMs: 65_000, lastToken: 1_000, incarnation: 1, clusterId: "c" },
  ...{ leases: 4, locks: 1_200, holds: 900, waiters: 3, sessions: 2 },
};
const top = {
  hottest: [
    { name: "hot", grantsPerSecond: 1_234.5 },
    { name: "warm\u001b[2J", grantsPerSecond: 0.25 },
  ],
  longestHolds: [
    { name: "h", holder: { token: 7, owner: "me", heldMs: 3_600_000, leaseRemainingMs: 9_000, revoking: true } },
  ],
  longestWaits: [
    {
      name: "w",
      waiter: {
        ...{ ticketId: "T1", position: 2, owner: "you", waitedMs: 61_000, mode: LOCK_MODE_SEMAPHORE, permits: 1 },
        ...{ permitLimit: 5, attached: true, blockedBy: { lock: "w", token: 7, owner: "me", hops: 1 } },
      },
    },
  ],
  timestamp: 99,
};

const sample = (parts: Partial<Sample> = {}): Sample => ({
  address: "localhost:7420",
  atMs: 0,
  status: decode(v1.StatusResponse, encode(v1.StatusResponse, status)),
  top: decode(v1.TopLocksResponse, encode(v1.TopLocksResponse, top)),
  tokensPerSecond: 12.34,
  ...parts,
});

describe("the view", () => {
  test("has a header and three tables", () => {
    expect(view(sample(), 10)).toEqual(
      [
        "leasehold 1.2.3 at localhost:7420, up for 1m5s, serving",
        "leases 4  locks 1,200  held 900  waiting 3  tokens/s 12.3  last token 1000  sessions 2",
        "",
        "HOTTEST LOCKS",
        "GRANTS/S  NAME",
        "   1,235  hot",
        "    0.25  warm\\u{1b}[2J",
        "",
        "LONGEST WAITS",
        "WAITED  NAME  OWNER  MODE            #",
        "  1m1s  w     you    1 of 5 permits  2",
        "",
        "LONGEST HOLDS",
        "HELD  NAME  OWNER                  MODE       TOKEN  LEASE ENDS IN",
        "  1h  h     me (being taken away)  exclusive      7           9.0s",
      ].map((line) => line.replace("OWNER                 MODE", "OWNER                  MODE")),
    );
  });

  test("has as many rows as fit, and says when there are none or no news", () => {
    const empty = decode(v1.TopLocksResponse, encode(v1.TopLocksResponse, {}));
    const lines = view(sample({ top: empty, tokensPerSecond: null }), 10, "cannot reach it");
    expect(lines[0]).toMatch(/up for 1m5s, NO ANSWER: cannot reach it$/);
    expect(lines[1]).toMatch(/tokens\/s - {2}/);
    expect(lines).toContain("nobody waits");
    for (const height of [1, 14, 24, 50]) {
      const rows = rowsFor(height);
      const many = {
        ...top,
        hottest: Array(100).fill(top.hottest[0]),
        longestWaits: Array(100).fill(top.longestWaits[0]),
      };
      const full = { ...many, longestHolds: Array(100).fill(top.longestHolds[0]) };
      const drawn = view(sample({ top: decode(v1.TopLocksResponse, encode(v1.TopLocksResponse, full)) }), rows);
      expect(drawn.length).toBeLessThanOrEqual(Math.max(height, 14));
    }
  });

  test.each([
    [0, "0.00"],
    [9.999, "10.00"],
    [12.34, "12.3"],
    [99_999.6, "100,000"],
  ])("%d grants per second are %s", (rate, text) => expect(rateText(rate)).toBe(text));
});

test("JSON has all of it", () => {
  expect(sampleForJson(sample())).toMatchObject({
    ...{ timestamp: 99, serving: true, lastToken: 1_000, tokensPerSecond: 12.34, leases: 4, holds: 900 },
    hottest: [top.hottest[0], top.hottest[1]],
    longestWaits: [{ name: "w", waiter: { ticketId: "T1", mode: "semaphore", blockedBy: { token: 7, hops: 1 } } }],
    longestHolds: [{ name: "h", holder: { token: 7, mode: "exclusive", revoking: true } }],
  });
});

describe("away from a terminal", () => {
  async function server() {
    let lastToken = 1_000;
    const limits: number[] = [];
    const fake = await fakeServer({
      "/leasehold.v1.AdminService/Status": () => encode(v1.StatusResponse, { ...status, lastToken: lastToken++ }),
      "/leasehold.v1.AdminService/TopLocks": (bytes) => {
        limits.push(decode(v1.TopLocksRequest, bytes).limit);
        return encode(v1.TopLocksResponse, {
          ...top,
          longestHolds: [{ name: "h", holder: { mode: LOCK_MODE_EXCLUSIVE } }],
        });
      },
    });
    onTestFinished(() => fake.stop());
    return { address: fake.address, limits };
  }

  test("one snapshot and the end", async () => {
    const { address, limits } = await server();
    const { code, stdout } = await leasehold(["top", "--addr", address]);
    expect([code, stdout.split("\n")[3]]).toEqual([0, "HOTTEST LOCKS"]);
    expect(stdout).not.toContain("\u001b");
    expect(limits).toEqual([10]);
  });

  test("--count N: so many, one JSON object a line, with the rate from the second on", async () => {
    const { address, limits } = await server();
    const args = ["top", "--json", "--count", "3", "--interval", "20ms", "--limit", "3", "--addr", address];
    const lines = (await leasehold(args)).stdout.trimEnd().split("\n");
    const rates = lines.map((line) => (JSON.parse(line) as { tokensPerSecond: number | null }).tokensPerSecond);
    expect(rates).toEqual([null, expect.any(Number), expect.any(Number)]);
    expect(rates[1]).toBeGreaterThan(0);
    expect(limits).toEqual([3, 3, 3]);
  });

  test.each([
    [["--count", "0"], "It is not a whole number above zero."],
    [["--interval", "0"], "It must be longer than 0."],
    [["--intervall", "1s"], "(Did you mean --interval?)"],
  ])("%j is a wrong usage", async (args, text) => {
    expect(await leasehold(["top", ...args])).toMatchObject({ code: 64, stderr: expect.stringContaining(text) });
  });
});

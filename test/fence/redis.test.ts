import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type RedisServer, startRedis } from "../services/redis.mjs";
import { describeWithServices } from "../services/vitest.js";
import { CHECK_CASES, cases, failedCases, fenceConformance } from "./conformance.js";
import { type Driver, drivers, type Rewrite, redisSubject, replaced, replacing } from "./redis-clients.js";

let alone: RedisServer;
let cluster: RedisServer;
const serverOf = (driver: Driver) => (driver.cluster ? cluster : alone);

describeWithServices("the Redis fence", ["redis"], () => {
  beforeAll(async () => {
    [alone, cluster] = await Promise.all([startRedis(), startRedis({ cluster: true })]);
  });
  afterAll(async () => {
    await alone?.stop();
    await cluster?.stop();
  });

  for (const driver of drivers) {
    fenceConformance(`Redis by ${driver.name}`, () => redisSubject(serverOf(driver), driver));
  }

  describe("scripts that are broken on purpose are found", () => {
    const compare = "if #floor > #token or (#floor == #token and floor > token) then";
    const exact = "tokens are compared as numbers, and exactly up to 2^53 - 1";
    const [ioredis, nodeRedis] = drivers as [Driver, Driver];

    it("without the check the suite fails where it must, and nowhere else", async () => {
      const failed = await failedCases(() => redisSubject(alone, ioredis, replacing(compare, "if false then")));
      expect(failed).toEqual(expect.arrayContaining([...CHECK_CASES]));
      const passes = [
        "a resource that was never written",
        "the same token may write again",
        "resources are independent",
        "bad tokens and names",
        "an administrator may reset",
        "nothing is sent for a lock that is lost",
        "a crash between check and write",
      ];
      for (const start of passes) {
        expect(failed.filter((title) => title.startsWith(start))).toEqual([]);
        expect(cases.some(({ title }) => title.startsWith(start))).toBe(true);
      }
    });

    const mutants: readonly (readonly [what: string, driver: Driver, rewrite: Rewrite, piece: string])[] = [
      ["compares tokens letter by letter", ioredis, replacing(compare, "if floor > token then"), compare],
      [
        "stores a token as the text of a Lua number",
        nodeRedis,
        replacing(`redis.call("set", KEYS[1], token)`, `redis.call("set", KEYS[1], tostring(tonumber(token)))`),
        `redis.call("set", KEYS[1], token)`,
      ],
    ];
    for (const [what, driver, rewrite, piece] of mutants) {
      it(`one that ${what}`, async () => {
        const failing = cases.filter(({ title }) => title === exact);
        expect(failing).toHaveLength(1);
        const subject = await redisSubject(alone, driver, rewrite);
        try {
          const names = `mutant/${what}`;
          for (const { run } of failing) await expect(run(subject, names)).rejects.toThrow();
        } finally {
          await subject.close();
        }
        expect(replaced).toContain(piece);
      });
    }
  });
});

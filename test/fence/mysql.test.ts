/** The fence in MariaDB does what every fence must, in both styles, and only because of its checks. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { startMariadb } from "../services/mariadb.mjs";
import { describeWithServices } from "../services/vitest.js";
import { CHECK_CASES, cases, failedCases, fenceConformance } from "./conformance.js";
import { openRows, openTx } from "./mysql-subject.js";

/** The check lets everything through. */
const NO_CHECK = [
  "drop procedure SCHEMA.leasehold_fence_check",
  `create procedure SCHEMA.leasehold_fence_check(of_resource varbinary(523), by_token bigint, raises boolean)
  begin end`,
];
/** The raise refuses nobody. */
const NO_REFUSAL = [
  "drop procedure SCHEMA.leasehold_fence_raise",
  `create procedure SCHEMA.leasehold_fence_raise(of_resource varbinary(523), by_token bigint)
    insert into SCHEMA.leasehold_fence (resource, token) values (of_resource, by_token)
    on duplicate key update token = greatest(token, by_token)`,
];

const titles = (...starts: string[]) =>
  cases.map(({ title }) => title).filter((title) => starts.some((start) => title.startsWith(start)));

describeWithServices("MariaDB", ["mariadb"], () => {
  let mariadb: Awaited<ReturnType<typeof startMariadb>>;
  beforeAll(async () => {
    mariadb = await startMariadb();
  });
  afterAll(() => mariadb?.stop());

  fenceConformance("MariaDB, transactions", () => openTx(mariadb.url));
  fenceConformance("MariaDB, transactions under read committed", () =>
    openTx(mariadb.url, { isolation: "read committed" }),
  );
  fenceConformance("MariaDB, transactions under serializable", () =>
    openTx(mariadb.url, { isolation: "serializable" }),
  );
  fenceConformance("MariaDB, rows that carry their token", () => openRows(mariadb.url), {
    "a register that was deleted and made anew is still guarded":
      "a deleted row takes its token with it; only insertRow gives the new one a token",
  });

  describe("broken on purpose", () => {
    // What has nothing to do with a check must not depend on it.
    const innocent = titles("a resource that", "the same token", "nothing is sent", "bad tokens", "an administrator");

    it("fails the suite without the check at the end of the transaction", async () => {
      const failed = await failedCases(() => openTx(mariadb.url, { sabotage: NO_CHECK }));
      expect(failed).toEqual(expect.arrayContaining([...CHECK_CASES]));
      for (const title of innocent) expect(failed).not.toContain(title);
    });

    it("fails the suite with neither that check nor a refusal by the raise", async () => {
      const failed = await failedCases(() => openTx(mariadb.url, { sabotage: [...NO_CHECK, ...NO_REFUSAL] }));
      expect(failed).toEqual(expect.arrayContaining([...CHECK_CASES, ...titles("a floor is not raised")]));
      for (const title of innocent) expect(failed).not.toContain(title);
    });

    it("fails the suite without the condition in the row's update", async () => {
      const always = (text: string) => text.replace(/ and `token` <= /, " and `token` >= 0 * ");
      const failed = await failedCases(() => openRows(mariadb.url, { rewrite: always }));
      expect(failed).toEqual(expect.arrayContaining([...CHECK_CASES]));
      for (const title of innocent) expect(failed).not.toContain(title);
    });
  });
});

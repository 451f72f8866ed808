/** The fence in PostgreSQL does what every fence must, in both styles, and only because of its checks. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { startPostgres } from "../services/postgres.mjs";
import { describeWithServices } from "../services/vitest.js";
import { CHECK_CASES, cases, failedCases, fenceConformance } from "./conformance.js";
import { openRows, openTx } from "./postgres-subject.js";

/** The check lets everything through. */
const NO_CHECK = `
  create or replace procedure SCHEMA.leasehold_fence_check(of_resource text, by_token bigint, raises boolean)
  language sql as 'select';`;
/** The raise refuses nobody. */
const NO_REFUSAL = `
  create or replace function SCHEMA.leasehold_fence_raise(of_resource text, to_token bigint) returns bigint
  language sql as $$
    insert into SCHEMA.leasehold_fence as fence (resource, token) values (of_resource, to_token)
    on conflict (resource) do update set token = greatest(fence.token, excluded.token) returning token
  $$;`;

const titles = (...starts: string[]) =>
  cases.map(({ title }) => title).filter((title) => starts.some((start) => title.startsWith(start)));

describeWithServices("PostgreSQL", ["postgres"], () => {
  let postgres: Awaited<ReturnType<typeof startPostgres>>;
  beforeAll(async () => {
    postgres = await startPostgres();
  });
  afterAll(() => postgres?.stop());

  fenceConformance("PostgreSQL, transactions", () => openTx(postgres.url));
  fenceConformance("PostgreSQL, transactions under repeatable read", () =>
    openTx(postgres.url, { isolation: "repeatable read" }),
  );
  fenceConformance("PostgreSQL, transactions under serializable", () =>
    openTx(postgres.url, { isolation: "serializable" }),
  );
  fenceConformance("PostgreSQL, rows that carry their token", () => openRows(postgres.url), {
    "a register that was deleted and made anew is still guarded":
      "a deleted row takes its token with it; only insertRow gives the new one a token",
  });

  describe("broken on purpose", () => {
    // What has nothing to do with a check must not depend on it.
    const innocent = titles("a resource that", "the same token", "nothing is sent", "bad tokens", "an administrator");

    it("fails the suite without the check at the end of the transaction", async () => {
      const failed = await failedCases(() => openTx(postgres.url, { sabotage: NO_CHECK }));
      expect(failed).toEqual(expect.arrayContaining([...CHECK_CASES]));
      for (const title of innocent) expect(failed).not.toContain(title);
      // The raise has its own refusal.
      for (const title of titles("a floor is not raised")) expect(failed).not.toContain(title);
    });

    it("fails the suite with neither that check nor a refusal by the raise", async () => {
      const failed = await failedCases(() => openTx(postgres.url, { sabotage: NO_CHECK + NO_REFUSAL }));
      expect(failed).toEqual(expect.arrayContaining([...CHECK_CASES, ...titles("a floor is not raised")]));
      for (const title of innocent) expect(failed).not.toContain(title);
    });

    it("fails the suite without the condition in the row's update", async () => {
      const always = (text: string) => text.replace(/ and "token" <= /, ' and "token" >= 0 * ');
      const failed = await failedCases(() => openRows(postgres.url, { rewrite: always }));
      expect(failed).toEqual(expect.arrayContaining([...CHECK_CASES]));
      for (const title of innocent) expect(failed).not.toContain(title);
    });
  });
});

/** The row style and the optimistic style, as far as they need no database: the statements, and what is made of answers. */
import { FenceError, holdOf, TOKEN_MAX } from "@leasehold/fence";
import { retryOnConflict } from "@leasehold/fence/postgres";
import { describe, expect, it } from "vitest";
import {
  assertWritten,
  type Dialect,
  type RowRunner,
  refusal,
  rowInsert,
  rowRaise,
  rowUpdate,
  runGuarded,
} from "../../src/fence/sql/rows.js";
import { versionedUpdate } from "../../src/fence/sql/versioned.js";
import { exclusive, shared } from "./locks.js";

const refused = (code: string) => expect.objectContaining({ code });
const numbered: Dialect = {
  quote: (name) => `"${name.replaceAll('"', '""')}"`,
  placeholder: (n) => `$${n}`,
  whole: (value) => String(value),
  asText: (column) => `${column}::text`,
  countsInUpdate: true,
};
const marked: Dialect = {
  quote: (name) => `\`${name.replaceAll("`", "``")}\``,
  placeholder: () => "?",
  whole: (value) => BigInt(value),
  asText: (column) => `cast(${column} as char)`,
  countsInUpdate: false,
};
const holds = holdOf(exclusive("orders/42", 34));
const shares = holdOf(shared("orders/42", 34));
const table = "orders";
const where = { id: 42 };

describe("the statements of the row style", () => {
  it("compare and set the token, and name one row", () => {
    const update = { table: "shop.orders", set: { state: "paid", note: null }, where: { id: 42, gone: null } };
    expect(rowUpdate(numbered, holds, update)).toMatchObject({
      write: {
        text:
          'update "shop"."orders" set "state" = $1, "note" = $2, "token" = $3 where "id" = $4 and "gone" is null' +
          ' and "token" <= $5 and not exists' +
          ' (select 1 from "shop"."orders" where "id" = $6 and "gone" is null limit 1 offset 1)',
        values: ["paid", null, "34", 42, "34", 42],
      },
      look: {
        text: 'select "token"::text as seen from "shop"."orders" where "id" = $1 and "gone" is null limit 2',
        values: [42],
      },
    });
    expect(rowUpdate(marked, holds, update).write).toEqual({
      text:
        "update `shop`.`orders` set `state` = ?, `note` = ?, `token` = ? where `id` = ? and `gone` is null" +
        " and `token` <= ?",
      values: ["paid", null, 34n, 42, 34n],
    });
  });

  it("leave the token alone under a shared hold", () => {
    const { write } = rowUpdate(marked, shares, { table, set: { state: "x" }, where });
    expect(write).toEqual({
      text: "update `orders` set `state` = ? where `id` = ? and `token` <= ?",
      values: ["x", 42, 34n],
    });
    expect(rowRaise(marked, shares, { table, where }).write).toEqual({
      text: "update `orders` set `token` = `token` where `id` = ? and `token` <= ?",
      values: [42, 34n],
    });
    expect(rowRaise(marked, holds, { table, where }).write).toEqual({
      text: "update `orders` set `token` = ? where `id` = ? and `token` <= ?",
      values: [34n, 42, 34n],
    });
    expect(rowInsert(marked, shares, { table, values: { id: 1 } }).values).toEqual([1, 0n]);
  });

  it("take another column for the token", () => {
    const { write, look } = rowUpdate(marked, holds, { table, set: { a: 1 }, where, tokenColumn: "fence" });
    expect(write.text).toBe("update `orders` set `a` = ?, `fence` = ? where `id` = ? and `fence` <= ?");
    expect(look.text).toBe("select cast(`fence` as char) as seen from `orders` where `id` = ? limit 2");
    expect(rowInsert(marked, holds, { table, values: { id: 1, token: 2 }, tokenColumn: "fence" })).toEqual({
      text: "insert into `orders` (`id`, `token`, `fence`) values (?, ?, ?)",
      values: [1, 2, 34n],
    });
  });

  it("quote whatever a column is called", () => {
    const odd = 'a"; drop table x; --';
    const { text } = rowUpdate(numbered, holds, { table, set: { [odd]: 1 }, where: { "`": 2 } }).write;
    expect(text).toContain('"a""; drop table x; --" = $1');
    expect(rowUpdate(marked, holds, { table, set: { a: 1 }, where: { "`": 2 } }).write.text).toContain("```` = ?");
  });

  it("are refused for what can only be a mistake", () => {
    const good = { table, set: { a: 1 }, where };
    const bad: object[] = [
      { ...good, table: "" },
      { ...good, table: "a.b.c.d" },
      { ...good, table: "a..b" },
      { ...good, table: 7 },
      { ...good, table: "x".repeat(64) },
      { ...good, table: "a\0" },
      { ...good, set: {} },
      { ...good, set: null },
      { ...good, set: [1] },
      { ...good, set: { a: undefined } },
      { ...good, set: { token: 7 } },
      { ...good, set: { "": 7 } },
      { ...good, where: {} },
      { ...good, where: { id: undefined } },
      { ...good, where: { token: 7 } },
      { ...good, where: "id = 42" },
      { ...good, tokenColumn: "" },
      { ...good, tokenColumn: "a\nb" },
      { ...good, set: Object.fromEntries(Array.from({ length: 1_001 }, (_, i) => [`c${i}`, i])) },
      { ...good, wehre: where },
    ];
    for (const update of bad) {
      expect(() => rowUpdate(numbered, holds, update as never), JSON.stringify(update)).toThrow(refused("INVALID"));
    }
    expect(() => rowInsert(numbered, holds, { table, values: { token: 7 } })).toThrow(refused("INVALID"));
    expect(() => rowInsert(numbered, holds, { table, set: {} } as never)).toThrow(refused("INVALID"));
    expect(() => rowRaise(numbered, holds, { ...good } as never)).toThrow(refused("INVALID"));
  });

  it("are not even built for a lock that is lost", () => {
    const lock = exclusive("orders/42", 34);
    const hold = holdOf(lock);
    lock.lose();
    expect(() => rowUpdate(numbered, hold, { table, set: { a: 1 }, where })).toThrow(refused("LOST"));
    expect(() => rowRaise(numbered, hold, { table, where })).toThrow(refused("LOST"));
    expect(() => rowInsert(numbered, hold, { table, values: { a: 1 } })).toThrow(refused("LOST"));
  });
});

describe("a write that changed no row", () => {
  const guarded = rowUpdate(numbered, holds, { table, set: { a: 1 }, where });

  it("is explained by what the row has", () => {
    expect(refusal(guarded, ["35"], table)).toMatchObject({
      code: "STALE_TOKEN",
      resource: "orders/42",
      token: 34,
      floor: 35,
    });
    expect(refusal(guarded, [String(TOKEN_MAX)], table).floor).toBe(TOKEN_MAX);
    expect(refusal(guarded, [], table)).toMatchObject({ code: "NOT_FOUND" });
    expect(refusal(guarded, [null], table)).toMatchObject({ code: "INVALID" });
    expect(refusal(guarded, ["3", "3"], table)).toMatchObject({ code: "INVALID" });
    expect(refusal(guarded, ["34"], table), "it has come to be since").toMatchObject({ code: "NOT_FOUND" });
    expect(() => refusal(guarded, ["3.5"], table)).toThrow(refused("INVALID"));
  });

  it("costs one look, and one that changed its row none", async () => {
    const ran: string[] = [];
    const runner = (rows: number): RowRunner => ({
      changed: async ({ text }) => {
        ran.push(text.slice(0, 6));
        return rows;
      },
      seen: async ({ text }) => {
        ran.push(text.slice(0, 6));
        return ["35"];
      },
    });
    await runGuarded(runner(1), guarded, table);
    expect(ran).toEqual(["update"]);
    await expect(runGuarded(runner(0), guarded, table)).rejects.toEqual(refused("STALE_TOKEN"));
    expect(ran).toEqual(["update", "update", "select"]);
  });
});

describe("assertWritten", () => {
  const lock = exclusive("orders/42", 34);

  it("reads the results of all drivers", () => {
    for (const result of [1, 2, { rowCount: 1 }, { affectedRows: 1 }, { changes: 1 }]) assertWritten(result, lock);
    for (const result of [0, { rowCount: 0 }, { affectedRows: 0 }, { changes: 0 }]) {
      const error = (() => {
        try {
          assertWritten(result, lock);
          return undefined;
        } catch (thrown) {
          return thrown;
        }
      })();
      expect(error).toMatchObject({ code: "STALE_TOKEN", resource: "orders/42", token: 34, floor: undefined });
      expect(FenceError.is(error)).toBe(true);
    }
    assertWritten(3, lock, 3);
    expect(() => assertWritten(2, lock, 3)).toThrow(refused("STALE_TOKEN"));
  });

  it("does not take for a success what does not tell", () => {
    for (const result of [undefined, null, {}, { rowCount: null }, "1", -1, Number.NaN, 1n, [1]]) {
      expect(() => assertWritten(result as number, lock)).toThrow(refused("INVALID"));
    }
  });
});

describe("optimistic updates", () => {
  const update = { table: "shows", where: { id: 7 }, set: { seats: 3 }, version: 5 };

  it("compare the version, and set the next one", () => {
    const { write, next } = versionedUpdate(marked, update);
    expect(next).toBe(6);
    expect(write).toEqual({
      text: "update `shows` set `seats` = ?, `version` = ? where `id` = ? and `version` = ?",
      values: [3, 6n, 7, 5n],
    });
    expect(versionedUpdate(marked, { ...update, version: "5", versionColumn: "v" }).write.text).toContain("`v` = ?");
    expect(versionedUpdate(marked, { ...update, version: 5n }).next).toBe(6);
  });

  it("tell a conflict from a row that is not there", () => {
    const guarded = versionedUpdate(numbered, update);
    expect(refusal(guarded, ["6"], "shows")).toMatchObject({ code: "CONFLICT", retryable: true });
    expect(refusal(guarded, ["5"], "shows"), "it was another one when it was written").toMatchObject({
      code: "CONFLICT",
    });
    expect(refusal(guarded, [], "shows")).toMatchObject({ code: "NOT_FOUND" });
    expect(refusal(guarded, [null], "shows")).toMatchObject({ code: "INVALID" });
    expect(refusal(guarded, ["5", "5"], "shows")).toMatchObject({ code: "INVALID" });
  });

  it("refuse versions that are none", () => {
    for (const version of [
      -1,
      1.5,
      TOKEN_MAX,
      2 ** 53,
      "",
      "x",
      "1.5",
      "-1",
      null,
      undefined,
      Number.NaN,
      -1n,
      2n ** 60n,
    ]) {
      expect(() => versionedUpdate(numbered, { ...update, version } as never)).toThrow(refused("INVALID"));
    }
    expect(() => versionedUpdate(numbered, { ...update, set: { version: 6 } })).toThrow(refused("INVALID"));
    expect(() => versionedUpdate(numbered, { ...update, versoin: 6 } as never)).toThrow(refused("INVALID"));
  });
});

describe("retryOnConflict", () => {
  const conflict = () => new FenceError("CONFLICT", "conflict");

  it("tries again until it works", async () => {
    const attempts: number[] = [];
    const result = await retryOnConflict(
      (attempt) => {
        attempts.push(attempt);
        if (attempt < 4) throw conflict();
        return "done";
      },
      { delayMs: 0 },
    );
    expect(result).toBe("done");
    expect(attempts).toEqual([1, 2, 3, 4]);
  });

  it("gives up after the last attempt, with the conflict", async () => {
    for (const attempts of [1, 3, undefined]) {
      let tried = 0;
      const failing = retryOnConflict(
        async () => {
          tried++;
          throw conflict();
        },
        { attempts, delayMs: 0 },
      );
      await expect(failing).rejects.toEqual(refused("CONFLICT"));
      expect(tried).toBe(attempts ?? 10);
    }
  });

  it("passes every other error at once", async () => {
    for (const error of [
      new Error("mine"),
      new FenceError("STALE_TOKEN", "stale"),
      new FenceError("NOT_FOUND", "gone"),
    ]) {
      let tried = 0;
      const failing = retryOnConflict(() => {
        tried++;
        throw error;
      });
      await expect(failing).rejects.toBe(error);
      expect(tried).toBe(1);
    }
  });

  it("waits no longer than its signal says", async () => {
    const controller = new AbortController();
    const reason = new Error("enough");
    const waiting = retryOnConflict(
      () => {
        setImmediate(() => controller.abort(reason));
        throw conflict();
      },
      { delayMs: 60_000, delayMsMax: 60_000, signal: controller.signal },
    );
    await expect(waiting).rejects.toBe(reason);
    await expect(retryOnConflict(() => "never", { signal: controller.signal })).rejects.toBe(reason);
  });

  it("checks its options before it tries", async () => {
    let tried = 0;
    const count = () => tried++;
    const bad = [{ attempts: 0 }, { attempts: 1_001 }, { delayMs: -1 }, { delayMsMax: 1e9 }, { atempts: 3 }, null];
    for (const options of bad) {
      await expect(retryOnConflict(count, options as never)).rejects.toEqual(refused("INVALID"));
    }
    await expect(retryOnConflict(7 as never)).rejects.toEqual(refused("INVALID"));
    expect(tried).toBe(0);
  });
});

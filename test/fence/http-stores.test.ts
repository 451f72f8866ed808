/** Where services keep their floors. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fenceStore, type HighWaterStore, type LevelDatabase, levelStore, memoryStore } from "@leasehold/fence/http";
import { sqliteFence } from "@leasehold/fence/sqlite";
import Database from "better-sqlite3";
import { Level } from "level";
import { afterEach, describe, expect, it } from "vitest";

const cleanups: (() => unknown)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

function folder(): string {
  const path = mkdtempSync(join(tmpdir(), "leasehold-stores-"));
  cleanups.push(() => rmSync(path, { recursive: true, force: true }));
  return path;
}

function openLevel(path = folder()): Level {
  const db = new Level(path);
  cleanups.push(() => db.close());
  return db;
}

function openSqlite() {
  const db = new Database(join(folder(), "floors.db"));
  cleanups.push(() => db.close());
  const fence = sqliteFence(db);
  fence.migrate();
  return fence;
}

const stores: [title: string, open: () => HighWaterStore][] = [
  ["memory", () => memoryStore()],
  ["LevelDB", () => levelStore(openLevel())],
  ["the fence in SQLite", () => fenceStore(openSqlite())],
];

function shuffled(count: number, seed: number): number[] {
  const tokens = Array.from({ length: count }, (_, i) => i + 1);
  let state = seed;
  for (let i = count - 1; i > 0; i--) {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    const j = state % (i + 1);
    [tokens[i], tokens[j]] = [tokens[j] as number, tokens[i] as number];
  }
  return tokens;
}

describe.each(stores)("floors in %s", (_title, open) => {
  it("rise and never fall", async () => {
    const store = open();
    expect(await store.get("a")).toBe(0);
    expect(await store.raise("a", 34)).toEqual({ ok: true, floor: 34 });
    expect(await store.raise("a", 34)).toEqual({ ok: true, floor: 34 });
    expect(await store.raise("a", 33)).toEqual({ ok: false, floor: 34 });
    expect(await store.get("a")).toBe(34);
    expect(await store.get("b")).toBe(0);
    expect(await store.raise("b", 2 ** 53 - 1)).toEqual({ ok: true, floor: 2 ** 53 - 1 });
    await store.reset("a");
    expect(await store.get("a")).toBe(0);
    expect(await store.raise("a", 1)).toEqual({ ok: true, floor: 1 });
  });

  it("rise in one step, whoever else raises them", async () => {
    const seed = Number(process.env.LEASEHOLD_SEED ?? 20_261_128);
    const store = open();
    const raised = await Promise.all(
      shuffled(200, seed).map(async (token) => ({ token, ...(await store.raise("a", token)) })),
    );
    expect(await store.get("a"), `seed ${seed}`).toBe(200);
    for (const { token, ok, floor } of raised) expect(ok, `seed ${seed}: ${token} at ${floor}`).toBe(floor <= token);
  });
});

describe("floors in memory", () => {
  it("are refused when there are too many, and none is forgotten", async () => {
    const store = memoryStore({ resourcesMax: 2 });
    await store.raise("a", 5);
    await store.raise("b", 5);
    await expect(store.raise("c", 5)).rejects.toMatchObject({ code: "LIMIT", resource: "c" });
    expect(await store.raise("a", 6)).toEqual({ ok: true, floor: 6 });
    expect(await store.raise("b", 4)).toEqual({ ok: false, floor: 5 });
    await store.reset("a");
    expect(await store.raise("c", 5)).toEqual({ ok: true, floor: 5 });
  });

  it("refuse options that they do not know", () => {
    expect(() => memoryStore({ max: 3 } as object)).toThrow(expect.objectContaining({ code: "INVALID" }));
    expect(() => memoryStore({ resourcesMax: 0 })).toThrow(expect.objectContaining({ code: "INVALID" }));
  });
});

const RAISE_AND_DIE = `
  import { Level } from "level";
  import { levelStore } from "@leasehold/fence/http";
  const db = new Level(process.argv[1]);
  const store = levelStore(db);
  console.log(JSON.stringify(await store.raise("a", 34)));
  setInterval(() => {}, 1000);
`;

describe("floors in LevelDB", () => {
  it("survive kill -9", async () => {
    const path = folder();
    const args = ["--input-type=module", "-e", RAISE_AND_DIE, path];
    const child = spawn(process.execPath, args, { stdio: ["ignore", "pipe", "inherit"] });
    cleanups.push(() => child.kill("SIGKILL"));
    const [said] = await once(child.stdout, "data");
    expect(String(said)).toBe('{"ok":true,"floor":34}\n');
    child.kill("SIGKILL");
    await once(child, "exit");
    const store = levelStore(openLevel(path));
    expect(await store.get("a")).toBe(34);
    expect(await store.raise("a", 33)).toEqual({ ok: false, floor: 34 });
  });

  it("are the same for all stores of a database, and apart by prefix", async () => {
    const db = openLevel();
    const [one, other, apart] = [levelStore(db), levelStore(db), levelStore(db, { prefix: "apart/" })];
    await Promise.all([one.raise("a", 35), other.raise("a", 34)]);
    expect(await other.get("a")).toBe(35);
    expect(await apart.get("a")).toBe(0);
    expect(await db.keys().all()).toEqual(["fence/a"]);
  });

  it("may lie in a sublevel, whatever its encodings are", async () => {
    const store = levelStore(openLevel().sublevel<string, unknown>("floors", { valueEncoding: "json" }));
    await store.raise("a", 34);
    expect(await store.get("a")).toBe(34);
  });

  it("are written with sync, and read back as exactly what a floor is", async () => {
    const db = openLevel();
    const options: unknown[] = [];
    const seen: LevelDatabase = {
      get: (key, as) => db.get(key, as),
      put: (key, value, as) => {
        options.push(as);
        return db.put(key, value, as);
      },
      del: (key, as) => {
        options.push(as);
        return db.del(key, as);
      },
    };
    const store = levelStore(seen);
    await store.raise("a", 34);
    await store.reset("a");
    expect(options).toEqual([expect.objectContaining({ sync: true }), expect.objectContaining({ sync: true })]);
    await db.put("fence/a", "thirty-four");
    await expect(store.get("a")).rejects.toMatchObject({ code: "INVALID" });
    await expect(store.raise("a", 35)).rejects.toMatchObject({ code: "INVALID" });
  });

  it("are not raised any more after a write that failed", async () => {
    const db = openLevel();
    let full = true;
    const failing: LevelDatabase = {
      get: (key, as) => db.get(key, as),
      del: (key, as) => db.del(key, as),
      put: (key, value, as) => (full ? Promise.reject(new Error("no space left on device")) : db.put(key, value, as)),
    };
    const store = levelStore(failing);
    await expect(store.raise("a", 34)).rejects.toThrow("no space left on device");
    full = false; // and what is acknowledged from now on may be gone after a crash
    await expect(store.raise("a", 34)).rejects.toMatchObject({ code: "UNREACHABLE" });
    await expect(store.raise("b", 1)).rejects.toMatchObject({ code: "UNREACHABLE" });
    expect(await store.get("a")).toBe(0);
    expect(await levelStore(failing).raise("a", 34)).toEqual({ ok: true, floor: 34 });
  });

  it("want a database", () => {
    expect(() => levelStore({} as LevelDatabase)).toThrow(expect.objectContaining({ code: "INVALID" }));
    expect(() => levelStore(openLevel(), { prefix: 7 as unknown as string })).toThrow(
      expect.objectContaining({ code: "INVALID" }),
    );
  });
});

describe("the floors of another fence", () => {
  it("are those of that fence", async () => {
    const fence = openSqlite();
    const store = fenceStore(fence);
    await fence.raise({ name: "seats", token: 21, slot: 3 });
    expect(await store.get("seats#3")).toBe(21);
    await store.raise("seats#3", 22);
    await expect(fence.raise({ name: "seats", token: 21, slot: 3 })).rejects.toMatchObject({ code: "STALE_TOKEN" });
  });

  it("fail as that fence fails", async () => {
    const store = fenceStore(sqliteFence(new Database(join(folder(), "no-table.db"))));
    await expect(store.get("a")).rejects.toThrow();
    await expect(store.raise("a", 1)).rejects.toThrow();
    expect(() => fenceStore({} as Parameters<typeof fenceStore>[0])).toThrow(
      expect.objectContaining({ code: "INVALID" }),
    );
  });
});

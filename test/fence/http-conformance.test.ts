/** The suite that all fences pass, over HTTP, with each framework and each kind of store. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fenceStore, levelStore, memoryStore } from "@leasehold/fence/http";
import { sqliteFence } from "@leasehold/fence/sqlite";
import Database from "better-sqlite3";
import { Level } from "level";
import { describe, expect, it } from "vitest";
import { CHECK_CASES, failedCases, fenceConformance } from "./conformance.js";
import { httpSubject } from "./http-service.js";

fenceConformance("HTTP, node:http, floors in memory", () => httpSubject("node", { store: memoryStore() }));

fenceConformance("HTTP, express, floors in LevelDB", async () => {
  const folder = mkdtempSync(join(tmpdir(), "leasehold-http-"));
  const db = new Level(folder);
  return httpSubject("express", { store: levelStore(db) }, async () => {
    await db.close();
    rmSync(folder, { recursive: true });
  });
});

fenceConformance("HTTP, fastify, floors of the fence in SQLite", async () => {
  const folder = mkdtempSync(join(tmpdir(), "leasehold-http-"));
  const db = new Database(join(folder, "floors.db"));
  const fence = sqliteFence(db);
  fence.migrate();
  return httpSubject("fastify", { store: fenceStore(fence) }, () => {
    db.close();
    rmSync(folder, { recursive: true });
  });
});

describe("the conformance suite notices", () => {
  it("a service that asks for no token where it writes", async () => {
    const failed = await failedCases(() => httpSubject("node", { store: memoryStore(), resource: () => null }));
    expect(failed).toEqual(expect.arrayContaining([...CHECK_CASES]));
    expect(failed).not.toContain("the same token may write again, and the floor may be raised to it again");
    expect(failed).not.toContain("a floor is not raised by a lower token");
    expect(failed).not.toContain("bad tokens and names are refused before anything is sent");
    expect(failed).not.toContain("nothing is sent for a lock that is lost");
  });
});

it("a request that was held up until the next holder has come is refused by the service", async () => {
  const subject = await httpSubject("node", { store: memoryStore() });
  try {
    const stopped = await subject.holder("a", 33, 60_000, "late");
    await subject.write({ name: "a", token: 34 }, "v34");
    expect(await stopped.goOn()).toBe("STALE_TOKEN");
    expect(await subject.read("a")).toBe("v34");
  } finally {
    await subject.close();
  }
});

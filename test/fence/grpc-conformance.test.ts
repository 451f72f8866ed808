/** The suite that all fences pass, over gRPC. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Fence } from "@leasehold/fence";
import { fenceStore, type HighWaterStore, memoryStore } from "@leasehold/fence/grpc";
import { sqliteFence } from "@leasehold/fence/sqlite";
import Database from "better-sqlite3";
import { describe, expect, it } from "vitest";
import { checkResource } from "../../src/fence/token.js";
import { CHECK_CASES, failedCases, fenceConformance } from "./conformance.js";
import { grpcSubject } from "./grpc-service.js";

const floorsIn = (store: HighWaterStore): Pick<Fence, "inspect" | "reset"> => ({
  inspect: async (resource) => ({ resource: checkResource(resource), floor: await store.get(resource) }),
  reset: async (resource) => store.reset(checkResource(resource)),
});

fenceConformance("gRPC, floors in memory", async () => {
  const store = memoryStore();
  return grpcSubject({ store }, floorsIn(store));
});

fenceConformance("gRPC, floors of the fence in SQLite", async () => {
  const folder = mkdtempSync(join(tmpdir(), "leasehold-grpc-"));
  const db = new Database(join(folder, "floors.db"));
  const fence = sqliteFence(db);
  fence.migrate();
  const subject = await grpcSubject({ store: fenceStore(fence) }, fence);
  const close = async () => {
    await subject.close();
    db.close();
    rmSync(folder, { recursive: true });
  };
  return { ...subject, close };
});

describe("the conformance suite notices", () => {
  it("a service that asks for no token where it writes", async () => {
    const store = memoryStore();
    const failed = await failedCases(() =>
      grpcSubject(
        { store, resource: ({ method, message }) => (method.endsWith("Touch") ? (message as { name: string }) : null) },
        floorsIn(store),
      ),
    );
    expect(failed).toEqual(expect.arrayContaining([...CHECK_CASES]));
    expect(failed).not.toContain("the same token may write again, and the floor may be raised to it again");
    expect(failed).not.toContain("a floor is not raised by a lower token");
    expect(failed).not.toContain("nothing is sent for a lock that is lost");
  });
});

it("a call that was held up until the next holder has come is refused by the service", async () => {
  const store = memoryStore();
  const subject = await grpcSubject({ store }, floorsIn(store));
  try {
    const stopped = await subject.holder("a", 33, 60_000, "late");
    await subject.write({ name: "a", token: 34 }, "v34");
    expect(await stopped.goOn()).toBe("STALE_TOKEN");
    expect(await subject.read("a")).toBe("v34");
  } finally {
    await subject.close();
  }
});

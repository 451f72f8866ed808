import type { ClientReadableStream, ServiceError } from "@grpc/grpc-js";
import { decode, encode, v1 } from "@leasehold/client/wire";
import { afterEach, describe, expect, test } from "vitest";
import { readBackup } from "../../src/server/backup/restore.js";
import { MemoryBacking, MemoryJournal } from "../../src/server/journal/memory.js";
import type { WireFailure } from "../../src/server/rpc/errors.js";
import type { RpcServerOptions } from "../../src/server/rpc/grpc-server.js";
import { type Access, everybody } from "../../src/server/security/access.js";
import { GrpcFailure, startServer, type TestServer, until } from "./support.js";

const PATH = "/leasehold.v1.AdminService/Backup";
const raw = (bytes: Buffer) => bytes;

/** A stream that is read, or is not. */
class Backup {
  readonly chunks: Buffer[] = [];
  failure: GrpcFailure | null = null;
  ended = false;
  readonly call: ClientReadableStream<Buffer>;

  constructor(t: TestServer, read = true, request = encode(v1.BackupRequest, {})) {
    this.call = t.client.grpc.makeServerStreamRequest(PATH, raw, raw, request);
    this.call.on("data", (bytes: Buffer) => this.chunks.push(Buffer.from(decode(v1.BackupResponse, bytes).data)));
    // A client that never began to read would take everything in and keep it.
    if (!read) this.call.once("data", () => this.call.pause());
    this.call.on("error", (error: ServiceError) => {
      this.failure = GrpcFailure.of(error);
    });
    this.call.on("end", () => {
      this.ended = true;
    });
  }

  read(): void {
    this.call.resume();
  }

  async whole(): Promise<Awaited<ReturnType<typeof readBackup>>> {
    await until("the backup ends", () => this.ended || this.failure !== null);
    expect(this.failure).toBeNull();
    return await readBackup(this.#pieces());
  }

  async refused(): Promise<GrpcFailure> {
    await until("the backup is refused", () => this.failure !== null);
    return this.failure as GrpcFailure;
  }

  async *#pieces() {
    yield* this.chunks;
  }
}

let t: TestServer | undefined;
afterEach(() => t?.stop());

/** A server whose store holds so many entries, of 16 kilobytes each. */
async function start(entries: number, options: Partial<RpcServerOptions> = {}) {
  const journal = new MemoryJournal(new MemoryBacking("c0ffee00".repeat(4)));
  await journal.open();
  await journal.append(["!", "[9,2000000,9,1,100]"]);
  const value = JSON.stringify(["ended", 5, "x".repeat(16_000)]);
  await journal.append(Array.from({ length: entries }, (_, i) => [`q//r${i}`, value]).flat());
  const ends: [number, WireFailure | null][] = [];
  let open = 0;
  t = await startServer(
    { closeMsMax: 50 },
    {
      backup: {
        snapshot: async () => {
          const snapshot = await journal.snapshot();
          open++;
          const close = snapshot.close.bind(snapshot);
          snapshot.close = async () => {
            open--;
            await close();
          };
          return snapshot;
        },
        origin: () => ({ storeFormat: 1, ttlMsMax: 60_000, takenWallMs: 1_000, server: "1.2.3" }),
      },
      onBackup: (_request, bytes, failure) => ends.push([bytes, failure]),
      ...options,
    },
  );
  return { server: t, journal, ends, snapshots: () => open };
}

describe("AdminService.Backup", () => {
  test("streams a whole file, in pieces of 256 KiB at most, and leaves the snapshot", async () => {
    const { server, ends, snapshots } = await start(3_000);
    const backup = new Backup(server);
    const { summary, restoration } = await backup.whole();
    expect(summary).toMatchObject({
      header: { clusterId: "c0ffee00".repeat(4), seq: 2, ttlMsMax: 60_000, server: "1.2.3" },
      entries: 3_001,
    });
    expect(restoration.contents).toMatchObject({ lastToken: 9, leases: 0 });
    expect(Math.max(...backup.chunks.map(({ length }) => length))).toBeLessThanOrEqual(256 * 1024);
    expect(ends).toEqual([[summary.bytes, null]]);
    expect(snapshots()).toBe(0);
  });

  test("one at a time; a client that does not read holds nothing but its stream", async () => {
    const { server, ends } = await start(2_000);
    const first = new Backup(server, false);
    await until("the first one has begun", () => first.chunks.length > 0);
    const second = await new Backup(server).refused();
    expect([second.details?.reason, second.message]).toEqual(["LIMIT", "a backup is being made already"]);
    expect([first.chunks.length, ends.length]).toEqual([1, 0]);
    // Other calls are answered meanwhile.
    await server.client.acquire({ name: "a", ttlMs: 1_000 });
    first.read();
    expect((await first.whole()).summary.entries).toBe(2_001);
    expect((await new Backup(server).whole()).summary.entries).toBe(2_001);
    expect(ends).toHaveLength(2);
  });

  test("a client that reads nothing for a while, or takes too long altogether, is left", async () => {
    for (const [times, message] of [
      [{ stallMsMax: 50, totalMsMax: 60_000 }, "the client has read nothing for 0.05 s"],
      [{ stallMsMax: 60_000, totalMsMax: 60 }, "the backup has taken more than 0.001 minutes"],
    ] as const) {
      const { server, ends, snapshots } = await start(2_000, { backupTimes: times });
      const backup = new Backup(server, false);
      await until("it is over", () => ends.length === 1);
      expect(ends[0]?.[1]).toEqual({ reason: "LIMIT", message, retryAfterMs: 0 });
      await until("the snapshot is left", () => snapshots() === 0);
      backup.call.cancel();
      await server.stop();
    }
  });

  test("a client that goes away ends it", async () => {
    const { server, ends, snapshots } = await start(2_000);
    const backup = new Backup(server, false);
    await until("it has begun", () => snapshots() === 1);
    backup.call.cancel();
    await until("it is over", () => ends.length === 1 && snapshots() === 0);
    expect(ends[0]?.[1]?.reason).toBe("CLOSED");
    await new Backup(server).whole();
  });

  test("ends with CLOSED when the server stops, and with the store's failure", async () => {
    const { server, journal, ends } = await start(2_000);
    const backup = new Backup(server, false);
    await until("it has begun", () => backup.chunks.length > 0);
    await journal.close();
    backup.read();
    const failed = await backup.refused();
    expect([failed.details?.reason, failed.message]).toEqual([
      "STORE_DOWN",
      expect.stringMatching(/^the store cannot be read: the (snapshot is closed|journal is not open)/),
    ]);
    expect((await new Backup(server).refused()).details?.reason).toBe("STORE_DOWN");
    expect(ends).toHaveLength(2);

    const other = await start(2_000);
    const closing = new Backup(other.server, false);
    await until("it has begun", () => other.snapshots() === 1);
    const stopped = other.server.stop();
    closing.read();
    expect((await closing.refused()).details?.reason).toBe("CLOSED");
    await stopped;
    expect(other.snapshots()).toBe(0);
  });

  test("asks for admin on everything, is charged, and ends when the credentials are withdrawn", async () => {
    const demands: unknown[] = [];
    const withdraw: ((failure: WireFailure) => void)[] = [];
    let permitted = false;
    let credit = 2;
    const access: Access = {
      authentication: true,
      authenticate: () => ({
        ...everybody,
        permits: (demand) => {
          demands.push(demand);
          return permitted ? null : { kind: "refused", reason: "DENIED", message: "not for you" };
        },
        charge: () => (credit-- > 0 ? null : { reason: "LIMIT", message: "slow down", retryAfterMs: 70 }),
        onWithdrawn: (listener) => {
          withdraw.push(listener);
          return () => undefined;
        },
      }),
    };
    const { server, snapshots } = await start(2_000, { access });
    expect((await new Backup(server).refused()).details?.reason).toBe("DENIED");
    expect(demands).toEqual([{ verb: "admin", name: "", prefix: true }]);
    permitted = true;
    const backup = new Backup(server, false);
    await until("it has begun", () => snapshots() === 1);
    withdraw[0]?.({ reason: "UNAUTHENTICATED", message: "expired", retryAfterMs: 0 });
    backup.read();
    expect((await backup.refused()).details?.reason).toBe("UNAUTHENTICATED");
    expect((await new Backup(server).refused()).message).toBe("slow down");
  });

  test("a malformed request is refused", async () => {
    const { server } = await start(1);
    expect((await new Backup(server, true, Buffer.from([0xff])).refused()).details?.reason).toBe("INVALID");
  });
});

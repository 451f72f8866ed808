/** With a real lock server: tokens that it has granted, validation by it, floors that are raised at the grant. */

import * as grpc from "@grpc/grpc-js";
import { connect, LeaseholdError } from "@leasehold/client";
import { fenceClientInterceptor } from "@leasehold/fence/grpc";
import { fencedFetch, httpFenceClient, memoryStore } from "@leasehold/fence/http";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { startLeasehold } from "../services/leasehold.mjs";
import { GrpcClient, GrpcService } from "./grpc-service.js";
import { ENDPOINT, Service } from "./http-service.js";

let leasehold: Awaited<ReturnType<typeof startLeasehold>>;
beforeAll(async () => {
  leasehold = await startLeasehold();
});
afterAll(() => leasehold?.stop());

const cleanups: (() => unknown)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

/** A client of the lock server. */
async function connected() {
  const client = await connect(leasehold.address);
  cleanups.push(() => client.close());
  return client;
}

/** A service that asks the lock server, as its own client. */
async function start() {
  const own = await connected();
  const store = memoryStore();
  const validate = (name: string, token: number) => own.validate(name, token);
  const service = await Service.start("node", { store, validate, serialize: true, clock: own.clock });
  cleanups.push(() => service.close());
  return { service, store, put: { method: "PUT", body: "x" }, endpoint: service.url + ENDPOINT };
}

describe("an HTTP service behind locks of a real server", () => {
  it("raises its floor at the grant, and lets the holder in until the next one has come", async () => {
    const { service, store, put, endpoint } = await start();
    const [one, two] = [await connected(), await connected()];
    const url = `${service.url}/registers/a`;
    const fence = httpFenceClient(endpoint);
    let late: (() => Promise<Response>) | undefined;
    const first = await one.withLock("a", { fence }, async (lock) => {
      expect(await store.get("a")).toBe(lock.token); // before anything was read or written
      const send = fencedFetch(lock, { clock: one.clock });
      expect((await send(url, put)).status).toBe(200);
      const { token } = lock;
      late = () => fencedFetch({ name: "a", token })(url, { ...put, body: "late" }); // as if this process stood still
      return token;
    });
    await two.withLock("a", { fence }, async (lock) => {
      expect(lock.token).toBeGreaterThan(first);
      await expect(late?.()).rejects.toMatchObject({ code: "STALE_TOKEN", token: first, floor: lock.token });
    });
    expect(service.registers.get("a")).toBe("x");
  });

  it("raises nothing for a token that was never granted, or is not held any more", async () => {
    const { service, store, put, endpoint } = await start();
    const client = await connected();
    const url = `${service.url}/registers/b`;
    const forged = fencedFetch({ name: "b", token: 2 ** 53 - 1 });
    await expect(forged(url, put)).rejects.toMatchObject({ code: "LOST" });
    const lock = await client.acquire("b");
    const { token } = lock;
    await expect(fencedFetch({ name: "other", token })(`${service.url}/registers/other`, put)).rejects.toMatchObject({
      code: "LOST", // granted, but for another lock
    });
    await lock.release();
    await expect(fencedFetch({ name: "b", token })(url, put)).rejects.toMatchObject({ code: "LOST" });
    await expect(httpFenceClient(endpoint).raise({ name: "b", token })).rejects.toMatchObject({ code: "LOST" });
    expect(await store.get("b")).toBe(0);
    expect(service.registers.size).toBe(0);
    expect(() => fencedFetch(lock)).toThrow(expect.objectContaining({ code: "LOST" }));
  });

  it("knows permits and readers", async () => {
    const { service, put, endpoint } = await start();
    const client = await connected();
    const fence = httpFenceClient(endpoint);
    await client.withLock("s", { permits: { of: 3 }, fence }, async (lock) => {
      const [slot] = lock.grant.slots;
      expect((await fencedFetch(lock)(`${service.url}/registers/s?slot=${slot}`, put)).status).toBe(200);
      expect(service.registers.has(`s#${slot}`)).toBe(true);
    });
    await client.withLock("r", { mode: "shared", fence }, async (lock) => {
      expect((await fencedFetch(lock)(`${service.url}/registers/r`, put)).status).toBe(200);
    });
  });

  it("is given back when the floor cannot be raised", async () => {
    const client = await connected();
    const fence = httpFenceClient("http://127.0.0.1:9/", { limitMs: 1_000 });
    const failing = client.withLock("c", { fence }, async () => "never");
    await expect(failing).rejects.toMatchObject({ code: "UNREACHABLE" });
    expect(await client.withLock("c", { wait: 0 }, async () => "free")).toBe("free");
  });
});

describe("a gRPC service behind locks of a real server", () => {
  it("refuses the holder whose lock somebody else has been granted", async () => {
    const own = await connected();
    const client = await connected();
    const validate = (name: string, token: number) => own.validate(name, token);
    const service = await GrpcService.start({ store: memoryStore(), validate });
    const calls = new GrpcClient(service.target);
    cleanups.push(
      () => service.close(),
      () => calls.close(),
    );
    const write = (token: number) => {
      const interceptors = [fenceClientInterceptor({ grpc, lock: { name: "g", token } })];
      return calls.unary("write", { name: "g", value: `v${token}` }, { interceptors });
    };
    const first = await client.withLock("g", async (lock) => {
      const interceptors = [fenceClientInterceptor({ grpc, lock, clock: client.clock })];
      await calls.unary("write", { name: "g", value: "x" }, { interceptors });
      return lock.token;
    });
    await client.withLock("g", (lock) => write(lock.token));
    const stale: unknown = await write(first).catch((error: unknown) => error);
    expect(LeaseholdError.is(stale, "STALE_TOKEN" as Parameters<typeof LeaseholdError.is>[1])).toBe(true);
    await expect(write(2 ** 53 - 1)).rejects.toMatchObject({ code: "LOST" });
  });
});

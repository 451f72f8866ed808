import { type Fenced, holdOf } from "@leasehold/fence";
import {
  deleteOp,
  type EtcdFence,
  type EtcdKv,
  type EtcdTxnRequest,
  etcdFence,
  etcdGateway,
  fromBase64,
  putOp,
  rangeOp,
  toBase64,
  valueIs,
  versionIs,
} from "@leasehold/fence/etcd";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { startEtcd } from "../services/etcd.mjs";
import { describeWithServices } from "../services/vitest.js";
import { CHECK_CASES, cases, failedCases, fenceConformance, type Subject } from "./conformance.js";
import { startHolder } from "./holder.js";
import { exclusive, shared } from "./locks.js";

type Etcd = Awaited<ReturnType<typeof startEtcd>>;
const refused = (code: string) => expect.objectContaining({ code });
const holderModule = new URL("./holders/etcd.mjs", import.meta.url).href;

async function read(kv: EtcdKv, key: string): Promise<string | undefined> {
  const { kvs } = await kv.range({ key: toBase64(key) });
  return kvs?.[0] && fromBase64(kvs[0].value).toString();
}

/** Counts the requests, and changes transactions on the way. */
function tapped(kv: EtcdKv, change = (request: EtcdTxnRequest): EtcdTxnRequest => request) {
  const count = { sent: 0 };
  const tap: EtcdKv = {
    txn: (request) => {
      count.sent++;
      return kv.txn(change(request));
    },
    range: (request) => {
      count.sent++;
      return kv.range(request);
    },
  };
  return { tap, count };
}

async function subject(url: string, change?: (request: EtcdTxnRequest) => EtcdTxnRequest): Promise<Subject> {
  const kv = etcdGateway(url);
  const { tap, count } = tapped(kv, change);
  const fence = etcdFence(tap);
  const key = (by: Fenced) => `register/${holdOf(by).resource}`;
  return {
    fence,
    write: async (by, value) => fence.put(by, key(by), value),
    read: (resource) => read(kv, `register/${resource}`),
    async recreate(by) {
      await fence.delete(by, key(by));
      await kv.txn({ success: [putOp(key(by), "made anew")] });
    },
    sent: () => count.sent,
    holder: (name, token, remainingMs, value) => startHolder(holderModule, { url }, name, token, remainingMs, value),
    close: async () => {},
  };
}

describeWithServices("the etcd fence", ["etcd"], () => {
  let server: Etcd;
  let kv: EtcdKv;
  let fence: EtcdFence;
  let count: { sent: number };
  beforeAll(async () => {
    server = await startEtcd();
    kv = etcdGateway(server.url);
    const counted = tapped(kv);
    count = counted.count;
    fence = etcdFence(counted.tap);
  });
  afterAll(() => server?.stop());

  fenceConformance("etcd", () => subject(server.url));

  describe("transactions that are broken on purpose are found", () => {
    const ofFloor = ({ key }: { key: string }) => fromBase64(key).toString().startsWith("leasehold/fence/");
    const checksNothing = (request: EtcdTxnRequest) => ({
      ...request,
      compare: request.compare?.filter((one) => !ofFloor(one)),
    });

    it("without the check the suite fails where it must, and nowhere else", async () => {
      const failed = await failedCases(() => subject(server.url, checksNothing));
      expect(failed).toEqual(expect.arrayContaining([...CHECK_CASES]));
      const passes = ["a resource that was", "the same token may", "resources are", "bad tokens", "an administrator"];
      for (const start of passes) expect(failed.filter((title) => title.startsWith(start))).toEqual([]);
    });

    it("without zeros in front of the tokens their order is another", async () => {
      const bare = (value: string) =>
        toBase64(
          fromBase64(value)
            .toString()
            .replace(/^0+(?=\d)/, ""),
        );
      const unpadded = (request: EtcdTxnRequest): EtcdTxnRequest => ({
        ...request,
        compare: request.compare?.map((one) => (one.value === undefined ? one : { ...one, value: bare(one.value) })),
        success: request.success?.map((op) =>
          op.request_put && ofFloor(op.request_put)
            ? { request_put: { ...op.request_put, value: bare(op.request_put.value) } }
            : op,
        ),
      });
      const exact = cases.filter(({ title }) => title.startsWith("tokens are compared as numbers"));
      expect(exact).toHaveLength(1);
      const broken = await subject(server.url, unpadded);
      for (const { run } of exact) await expect(run(broken, "unpadded")).rejects.toThrow();
    });
  });

  describe("its writes", () => {
    it("are one transaction each, which does not write the floor again once it is raised", async () => {
      const lock = exclusive("one", 5);
      await fence.raise(lock);
      const revisionOf = async () => (await kv.range({ key: toBase64("leasehold/fence/one") })).kvs?.[0]?.mod_revision;
      const revision = await revisionOf();
      const before = count.sent;
      await fence.put(lock, "one", "v");
      await fence.delete(lock, "one");
      await fence.txn(lock, { success: [putOp("one", "v")] });
      await fence.raise(lock);
      expect(count.sent - before).toBe(4);
      expect(await revisionOf()).toBe(revision);
    });

    it("raise the floor with the first of them, and again after a reset by others", async () => {
      await fence.put(exclusive("first", 5), "first", "v");
      expect((await fence.inspect("first")).floor).toBe(5);
      await etcdFence(kv).reset("first");
      await fence.put(exclusive("first", 5), "first", "v");
      expect((await fence.inspect("first")).floor).toBe(5);
      await etcdFence(kv).reset("first");
      await etcdFence(kv).raise(exclusive("first", 2));
      await fence.put(exclusive("first", 5), "first", "v");
      expect((await fence.inspect("first")).floor).toBe(5);
    });

    it("take bytes, and tell what was deleted", async () => {
      const lock = exclusive("bytes", 1);
      const bytes = Buffer.from([0, 255, 128, 10]);
      await fence.put(lock, bytes, bytes);
      const { kvs } = await kv.range({ key: toBase64(bytes) });
      expect(fromBase64(kvs?.[0]?.value)).toEqual(bytes);
      await fence.put(lock, "empty", "");
      expect(await read(kv, "empty")).toBe("");
      expect(await fence.delete(lock, bytes)).toBe(true);
      expect(await fence.delete(lock, bytes)).toBe(false);
    });

    it("can be bound to a lease of etcd", async () => {
      const grant = await fetch(`${server.url}/v3/lease/grant`, { method: "POST", body: JSON.stringify({ TTL: 600 }) });
      const { ID: lease } = (await grant.json()) as { ID: string };
      await fence.put(exclusive("leased", 1), "leased", "v", { lease });
      expect((await kv.range({ key: toBase64("leased") })).kvs?.[0]?.lease).toBe(lease);
      await expect(fence.put(exclusive("leased", 1), "leased", "v", { lease: "12345" })).rejects.toEqual(
        refused("NOT_FOUND"),
      );
      await expect(fence.put(exclusive("leased", 1), "leased", "v", { lease: "x" })).rejects.toEqual(
        refused("INVALID"),
      );
    });

    it("are a user's transaction whose own comparisons choose, behind the guard", async () => {
      const lock = exclusive("txn", 7);
      const request = {
        compare: [versionIs("txn", "EQUAL", 0), valueIs("txn/none", "EQUAL", "v")],
        success: [putOp("txn", "both held")],
        failure: [putOp("txn", "one did not hold"), rangeOp("txn/none"), deleteOp("txn/other")],
      };
      const second = await fence.txn(lock, request);
      expect(second.succeeded).toBe(false);
      expect(second.responses).toHaveLength(3);
      expect(await read(kv, "txn")).toBe("one did not hold");
      const third = await fence.txn(lock, { compare: [versionIs("txn", "EQUAL", 1)], success: [rangeOp("txn")] });
      expect(third.succeeded).toBe(true);
      expect(fromBase64(third.responses[0]?.response_range?.kvs?.[0]?.value).toString()).toBe("one did not hold");
      expect(await fence.txn(lock, {})).toEqual({ succeeded: true, responses: [] });

      await fence.raise(exclusive("txn", 8));
      await expect(fence.txn(lock, request)).rejects.toMatchObject({ code: "STALE_TOKEN", floor: 8, token: 7 });
      expect(await read(kv, "txn"), "neither success nor failure is carried out").toBe("one did not hold");
    });

    it("refuse the fence's own keys and what is no transaction, before anything is sent", async () => {
      const lock = exclusive("bad", 1);
      const before = count.sent;
      const range = (key: string, range_end: string | Buffer) => ({
        request_delete_range: { key: toBase64(key), range_end: toBase64(range_end) },
      });
      const own = "leasehold/fence/bad";
      const requests: unknown[] = [
        { success: [putOp(own, "0")] },
        { failure: [deleteOp(own)] },
        { success: [{ request_txn: { failure: [{ request_txn: { success: [deleteOp(own)] } }] } }] },
        { success: [range("leasehold", "leasehole")] },
        { success: [range("a", Buffer.from([0]))] },
        { success: [range("leasehold/fence/zzz", "z")] },
        { success: [putOp("", "v")] },
        { success: [null] },
        { success: "all" },
        { when: [] },
        null,
      ];
      for (const request of requests) {
        await expect(fence.txn(lock, request as EtcdTxnRequest)).rejects.toEqual(refused("INVALID"));
      }
      await expect(fence.put(lock, own, "0")).rejects.toEqual(refused("INVALID"));
      await expect(fence.put(lock, 7 as unknown as string, "0")).rejects.toEqual(refused("INVALID"));
      await expect(fence.put(lock, "k", "v", { ttl: 5 } as object)).rejects.toEqual(refused("INVALID"));
      expect(count.sent).toBe(before);
      await fence.txn(lock, { success: [range("leasehold/fence0", "z"), putOp("leasehold/fence", "not one")] });
      expect(() => etcdFence(kv, { prefix: "" })).toThrow(refused("INVALID"));
      expect(() => etcdFence({} as EtcdKv)).toThrow(refused("INVALID"));
    });

    it("are refused when the floor is no number: what cannot be read does not count as zero", async () => {
      for (const floor of ["", "0", "5", "abc", "-000000000000001", "9".repeat(16), "9".repeat(20)]) {
        await kv.txn({ success: [putOp("leasehold/fence/odd", floor)] });
        for (const lock of [exclusive("odd", 9), shared("odd", 9)]) {
          await expect(fence.put(lock, "odd", "v"), floor).rejects.toEqual(refused("INVALID"));
        }
        await expect(fence.inspect("odd"), floor).rejects.toEqual(refused("INVALID"));
      }
      expect(await read(kv, "odd")).toBeUndefined();
    });

    it("give up, as a conflict, when the floor does not stand still", async () => {
      const restless = tapped(kv, (request) => ({ ...request, compare: [versionIs("restless", "GREATER", 0)] }));
      const write = etcdFence(restless.tap).put(exclusive("restless", 1), "k", "v");
      await expect(write).rejects.toMatchObject({ code: "CONFLICT", retryable: true });
      expect(restless.count.sent).toBe(8);
    });

    it("that etcd refuses are told as refused", async () => {
      const lock = exclusive("too much", 1);
      await expect(fence.put(lock, "k", "x".repeat(2_000_000))).rejects.toEqual(refused("INVALID"));
      const twice = { success: [putOp("k", "1"), putOp("k", "2")] };
      await expect(fence.txn(lock, twice)).rejects.toMatchObject({ code: "INVALID", resource: "too much", token: 1 });
      const many = (n: number) => ({ success: Array.from({ length: n }, (_, i) => putOp(`k${i}`, "v")) });
      await expect(fence.txn(lock, many(129))).rejects.toEqual(refused("INVALID"));
      await fence.raise(lock);
      expect((await fence.txn(lock, many(126))).responses).toHaveLength(126);
    });
  });
});

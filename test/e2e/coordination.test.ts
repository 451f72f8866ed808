/** The SDK against a real server where time, loss and waiting meet. */
import { expect, onTestFinished, test } from "vitest";
import { type Client, connect } from "../../src/client/index.js";
import { Network, ServerProcess, temporaryFolder, until } from "./support.js";

async function started() {
  const server = await ServerProcess.start(`level:${await temporaryFolder()}/data`);
  const clientOf = async (address: string, options = {}): Promise<Client> => {
    const client = await connect(address, options);
    onTestFinished(() => client.close());
    return client;
  };
  return { server, clientOf, a: await clientOf(server.address), b: await clientOf(server.address) };
}

test("a worker that hangs loses its lock although its process renews, and the lock delay follows", async () => {
  const { server, a, b } = await started();
  const lease = await a.lease({ ttl: "60s", progressEvery: "1s" });
  const lock = await a.acquire("job", { lease, lockDelay: "60s" });
  await until(() => lock.state.is === "lost");
  expect(lock.state).toEqual({ is: "lost", reason: "expired" });
  await until(async () => (await b.describe("job")).holders.length === 0);
  expect((await b.describe("job")).delayRemainingMs).toBeGreaterThan(50_000);
  expect(await b.tryAcquire("job")).toMatchObject({ acquired: false, busy: { holders: [] } });
  const ends = await (await fetch(`http://${server.opsAddress}/metrics`)).text();
  expect(ends).toMatch(/leasehold_lease_ends_total\{reason="hung"\} 1/);
});

test("a client that finds itself past its own deadline while it was cut off abandons its lock: the delay follows", async () => {
  const { server, clientOf, b } = await started();
  const network = await Network.to(server.address);
  const cut = await clientOf(network.address);
  const keeper = await cut.acquire("kept", { ttl: "60s" }); // keeps the session alive
  const lock = await cut.acquire("job", { ttl: "2s", lockDelay: "60s" });
  network.refuse();
  network.cut();
  await until(() => lock.state.is === "lost");
  network.accept();
  await until(async () => (await b.describe("job")).holders.length === 0);
  expect((await b.describe("job")).delayRemainingMs).toBeGreaterThan(50_000);
  expect(keeper.state.is).toBe("held");
});

test("after a clean release there is no delay", async () => {
  const { a, b } = await started();
  const lock = await a.acquire("job", { lockDelay: "60s" });
  expect(await lock.release()).toBe(true);
  expect((await b.tryAcquire("job")).acquired).toBe(true);
});

test("a wait lasts as long as was asked for, over a kill -9 of the server, and then names the holder", async () => {
  const { server, a, b } = await started();
  const holder = await a.acquire("job", { owner: "alice" });
  const waiting = b.acquire("job", { wait: "5s" }).catch((error) => error);
  await until(async () => (await a.describe("job")).waitersTotal === 1);
  await server.kill();
  await server.restart();
  expect(await waiting).toMatchObject({ code: "BUSY", busy: { holders: [{ owner: "alice" }] } });
  expect(holder.state.is).toBe("held");
});

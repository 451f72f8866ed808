/** A hold that is tied to a connection, with whatever can happen to the three processes: application, sidecar, server. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, onTestFinished, test } from "vitest";
import type { HoldBody, ProblemBody } from "../../src/sidecar/api/schemas.js";
import { leasehold } from "../cli/support.js";
import { type Address, memoryServer } from "../e2e/in-process.js";
import { ServerProcess, temporaryFolder, until } from "../e2e/support.js";
import { client } from "../run/support.js";
import { SidecarProcess } from "./support.js";

const holder = fileURLToPath(new URL("./holder.mjs", import.meta.url));
const monotonicMs = () => Number(process.hrtime.bigint()) / 1e6;
const LONG = ["--ttl", "10m"];
const SHORT = ["--ttl", "2s"];

async function both(...flags: string[]): Promise<[Address, SidecarProcess]> {
  const server = await memoryServer();
  return [server, await SidecarProcess.start(server, ...flags)];
}

const holders = async (server: Address, name: string) => (await (await client(server)).describe(name)).holders;

/** A program that holds a lock until it is ended, and prints what it hears. */
async function application(file: string, args: readonly string[]): Promise<ChildProcess> {
  const child = spawn(file, args, { stdio: ["ignore", "pipe", "inherit"] });
  onTestFinished(() => void child.kill("SIGKILL"));
  let said = "";
  child.stdout?.on("data", (chunk) => {
    said += chunk;
  });
  await until(() => said.includes('"granted"'), 20_000, "the grant");
  return child;
}

test("closing the connection releases the lock at once", async () => {
  const [server, sidecar] = await both(...LONG);
  const stream = sidecar.hold("/v1/locks/orders%2F42/hold?wait=5s&metadata=me");
  const granted = await stream.granted();
  expect(granted).toMatchObject({ name: "orders/42", tie: "connection", state: "held", token: 1 });
  expect(await holders(server, "orders/42")).toMatchObject([{ token: 1 }]);
  await stream.event("alive");
  stream.close();
  await until(async () => (await holders(server, "orders/42")).length === 0, 5_000, "the release");
  expect((await sidecar.ask("GET", "/v1/holds")).body).toMatchObject({ total: 0 });
});

test.each(["curl", "node"])(
  "%s is killed with -9 while it holds: the lock is free long before its TTL",
  async (kind) => {
    const path = join(await temporaryFolder(), "s.sock");
    const [server] = await both(...LONG, "--listen", `unix:${path}`);
    const hold = "/v1/locks/a/hold?wait=5s";
    const app =
      kind === "curl"
        ? await application("curl", ["-sN", "--unix-socket", path, "-XPOST", `http://x${hold}`])
        : await application(process.execPath, [holder, path, hold]);
    const next = (await client(server)).acquire("a", { wait: "30s" });
    await until(async () => (await (await client(server)).describe("a")).waitersTotal === 1);
    const killedAt = performance.now();
    app.kill("SIGKILL");
    await next;
    expect(performance.now() - killedAt).toBeLessThan(5_000); // of a TTL of ten minutes
  },
);

test("an application that was stopped holds on; when it is killed then, the lock is free", async () => {
  const path = join(await temporaryFolder(), "s.sock");
  const [server] = await both(...SHORT, "--listen", `unix:${path}`);
  const app = await application(process.execPath, [holder, path, "/v1/locks/a/hold"]);
  app.kill("SIGSTOP");
  const stoppedAt = monotonicMs();
  await until(() => monotonicMs() - stoppedAt > 3_000); // more than the TTL
  expect(await holders(server, "a")).toMatchObject([{ token: 1 }]);
  app.kill("SIGKILL");
  await until(async () => (await holders(server, "a")).length === 0, 5_000, "the release");
});

test("who does not get it hears so by the status, before any stream", async () => {
  const [server, sidecar] = await both(...LONG);
  const lock = await (await client(server)).acquire("a");
  const refused = sidecar.hold("/v1/locks/a/hold");
  await until(() => refused.problem !== undefined);
  expect([refused.status, refused.problem?.code]).toEqual([423, "BUSY"]);
  const waiting = sidecar.hold("/v1/locks/a/hold?wait=30s");
  await until(async () => (await (await client(server)).describe("a")).waitersTotal === 1);
  expect(waiting.status).toBe(0);
  await lock.release();
  expect((await waiting.granted()).token).toBe(2);
});

test("a release by another request ends the stream", async () => {
  const [server, sidecar] = await both(...LONG);
  const stream = sidecar.hold("/v1/locks/a/hold");
  const { token } = await stream.granted();
  expect((await sidecar.ask("POST", "/v1/locks/a/release", { token })).body).toEqual({ released: true });
  await stream.event("released");
  await until(() => stream.ended);
  expect(await holders(server, "a")).toEqual([]);
});

test("taken away by an administrator: the next holder waits until the application has closed the stream", async () => {
  const [server, sidecar] = await both(...LONG);
  const stream = sidecar.hold("/v1/locks/a/hold");
  await stream.granted();
  const next = await client(server);
  let granted = false;
  const waiting = next.acquire("a", { wait: "60s" }).then(() => {
    granted = true;
  });
  await leasehold(["release", "a", "--force", "--yes", "--no-wait", "--addr", server.address]);
  expect(await stream.event("lost")).toMatchObject({ reason: "forced" });
  await sidecar.ask("GET", "/v1/lock?name=a"); // a round trip: a release would have been there before it
  expect(await holders(server, "a")).toMatchObject([{ token: 1, revoking: true }]);
  expect([granted, stream.ended]).toEqual([false, false]);
  stream.close();
  await waiting;
});

test("a maximum is announced, and then it is over", async () => {
  const [, sidecar] = await both(...SHORT);
  const stream = sidecar.hold("/v1/locks/a/hold?maxHold=2s");
  await stream.granted();
  expect(await stream.event("yield")).toMatchObject({ reason: "max_hold" });
  expect(await stream.event("lost")).toMatchObject({ reason: "max_hold" });
  await until(() => stream.ended, 20_000, "the end of the stream, a TTL later");
});

test("a restart of the server ends no hold", async () => {
  const server = await ServerProcess.start(`level:${await temporaryFolder()}`);
  const sidecar = await SidecarProcess.start(server, "--ttl", "5s");
  const stream = sidecar.hold("/v1/locks/a/hold");
  const granted = await stream.granted();
  const kept = await sidecar.ask<HoldBody>("POST", "/v1/locks/b/acquire", { maxHold: "1h" });
  await server.kill();
  await server.restart();
  // Renewed since: held for longer than was believed before.
  await until(() =>
    stream.events.some((e) => e.event === "alive" && e.untilMonotonicMs > granted.untilMonotonicMs + 6_000),
  );
  expect(stream.events.map(({ event }) => event)).not.toContain("lost");
  expect(await holders(server, "a")).toMatchObject([{ token: granted.token }]);
  expect((await sidecar.ask("GET", `/v1/holds/${kept.body.holdId}`)).status).toBe(200);
});

test("a server that is gone for longer than the TTL: jeopardy, then lost, not later than was promised", async () => {
  const server = await ServerProcess.start("memory:");
  const sidecar = await SidecarProcess.start(server, ...SHORT);
  const stream = sidecar.hold("/v1/locks/a/hold");
  await stream.event("alive");
  await server.kill();
  await stream.event("jeopardy");
  expect(await stream.event("lost")).toMatchObject({ reason: "expired" });
  await until(() => stream.ended);
});

test("a sidecar that is killed with -9: the lock is free when its TTL is over, and not before", async () => {
  const [server, sidecar] = await both(...SHORT);
  const stream = sidecar.hold("/v1/locks/a/hold");
  await stream.event("alive");
  const waiter = await client(server);
  const next = waiter.acquire("a", { wait: "30s" });
  await until(async () => (await waiter.describe("a")).waitersTotal === 1);
  sidecar.signal("SIGKILL");
  await until(() => stream.ended); // so the application notices
  const last = stream.events.findLast((event) => "untilMonotonicMs" in event) as { untilMonotonicMs: number };
  await next;
  expect(monotonicMs()).toBeGreaterThan(last.untilMonotonicMs);
});

test("a sidecar that was stopped for longer than the TTL says lost, and never again that it holds", async () => {
  const [server, sidecar] = await both(...SHORT);
  const stream = sidecar.hold("/v1/locks/a/hold");
  await stream.event("alive");
  const kept = await sidecar.ask<HoldBody>("POST", "/v1/locks/b/acquire", { maxHold: "1h" });
  sidecar.signal("SIGSTOP");
  const before = stream.events.length;
  await (await client(server)).acquire("a", { wait: "30s" });
  const last = stream.events.at(-1) as { untilMonotonicMs: number };
  expect(monotonicMs()).toBeGreaterThan(last.untilMonotonicMs);
  const late = sidecar.ask<ProblemBody>("GET", `/v1/holds/${kept.body.holdId}`); // is answered by who wakes up
  sidecar.signal("SIGCONT");
  await stream.event("lost");
  expect(stream.events.slice(before).map(({ event }) => event)).toEqual(["lost"]);
  expect((await late).status).toBe(410);
});

test("a sidecar that is asked to stop asks the applications, waits, and gives everything back", async () => {
  const [server, sidecar] = await both(...LONG, "--stop-after", "60s");
  const first = sidecar.hold("/v1/locks/a/hold");
  const second = sidecar.hold("/v1/locks/b/hold");
  const kept = await sidecar.ask<HoldBody>("POST", "/v1/locks/c/acquire", { maxHold: "1h" });
  await Promise.all([first.granted(), second.granted()]);
  sidecar.signal("SIGTERM");
  expect(await first.event("yield")).toMatchObject({ reason: "closing" });
  const refused = await sidecar.ask<ProblemBody>("POST", "/v1/locks/d/acquire", { maxHold: "1h" });
  expect([refused.status, refused.body.code, refused.headers["retry-after"]]).toEqual([503, "CLOSED", "1"]);
  expect((await sidecar.ask("GET", "/readyz")).status).toBe(503);
  expect(await holders(server, "a")).toHaveLength(1);
  first.close();
  second.close();
  await sidecar.ask("DELETE", `/v1/holds/${kept.body.holdId}`);
  expect(await sidecar.exit()).toBe(0); // at once, and not after a minute
  for (const name of ["a", "b", "c"]) expect(await holders(server, name)).toEqual([]);
});

test("applications that do not end in time hear that their locks are gone, and nothing is left held", async () => {
  const [server, sidecar] = await both(...LONG, "--stop-after", "200ms");
  const stream = sidecar.hold("/v1/locks/a/hold");
  await stream.granted();
  sidecar.signal("SIGTERM");
  expect(await stream.event("lost")).toMatchObject({ reason: "closing" });
  expect(await sidecar.exit()).toBe(0);
  expect(await holders(server, "a")).toEqual([]);
});

test("a thousand holds at the same time", async () => {
  const path = join(await temporaryFolder(), "s.sock");
  const [server, sidecar] = await both(...LONG, "--listen", `unix:${path}`);
  const streams = Array.from({ length: 1_000 }, (_, i) => sidecar.hold(`/v1/locks/many%2F${i}/hold`));
  const tokens = new Set((await Promise.all(streams.map((stream) => stream.granted()))).map(({ token }) => token));
  expect(tokens.size).toBe(1_000);
  expect((await sidecar.ask("GET", "/v1/holds")).body).toMatchObject({ total: 1_000 });
  for (const stream of streams) stream.close();
  const observer = await client(server);
  const left = async () => {
    for await (const _ of observer.locks({ prefix: "many/" })) return false;
    return true;
  };
  await until(left, 20_000, "the release of all");
});

test("no more holds and waits than permitted, and places come back", async () => {
  const [, sidecar] = await both(...LONG, "--holds", "2");
  const first = sidecar.hold("/v1/locks/a/hold");
  await first.granted();
  const waiting = sidecar.hold("/v1/locks/a/hold?wait=1m");
  await until(async () => (await sidecar.ask("GET", "/v1/status")).body.waits === 1);
  const refused = await sidecar.ask<ProblemBody>("POST", "/v1/locks/b/acquire", { maxHold: "1h" });
  expect([refused.status, refused.body.code, refused.headers["retry-after"]]).toEqual([429, "LIMIT", "1"]);
  waiting.close();
  await until(async () => (await sidecar.ask("GET", "/v1/status")).body.waits === 0);
  expect((await sidecar.ask("POST", "/v1/locks/b/acquire", { maxHold: "1h" })).status).toBe(200);
});

test("a server with another store than before ends the sidecar: its tokens would say nothing", async () => {
  const server = await ServerProcess.start("memory:");
  const sidecar = await SidecarProcess.start(server, ...SHORT);
  await sidecar.hold("/v1/locks/a/hold").granted();
  await server.kill();
  await server.restart();
  await until(
    async () =>
      sidecar.ended || (await sidecar.ask("POST", "/v1/locks/b/acquire?maxHold=1m").catch(() => null)) === null,
  );
  expect(await sidecar.exit()).toBe(78);
  expect(sidecar.log).toContain("cluster");
});

test("an application that reads nothing is not waited for", async () => {
  const [server, sidecar] = await both("--ttl", "1s");
  const path = `/v1/locks/a/hold`;
  const { connect } = await import("node:net");
  const [host, port] = sidecar.address.split(":");
  const socket = connect(Number(port), host).pause();
  onTestFinished(() => void socket.destroy());
  await once(socket, "connect");
  socket.write(`POST ${path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n`);
  await until(async () => (await holders(server, "a")).length === 1);
  const other = sidecar.hold("/v1/locks/b/hold");
  await until(() => other.events.filter(({ event }) => event === "alive").length > 5);
  socket.destroy();
  await until(async () => (await holders(server, "a")).length === 0, 5_000, "the release");
});

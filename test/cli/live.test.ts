/** The commands that look at locks, against a real server. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { type Client, connect } from "@leasehold/client";
import { describe, expect, onTestFinished, test } from "vitest";
import { ServerProcess, until } from "../e2e/support.js";
import { environment, leasehold, program } from "./support.js";

async function serverAndClient(): Promise<{ server: ServerProcess; client: Client }> {
  const server = await ServerProcess.start("memory:");
  const client = await connect(server.address, { owner: "me" });
  onTestFinished(() => client.close());
  return { server, client };
}

class Watch {
  readonly process: ChildProcess;
  stdout = "";
  stderr = "";
  readonly exit: Promise<number | string>;

  constructor(server: ServerProcess, args: readonly string[]) {
    const command = [program, "watch", ...args, "--addr", server.address];
    this.process = spawn(process.execPath, command, { env: environment(), stdio: ["ignore", "pipe", "pipe"] });
    this.process.stdout?.on("data", (chunk) => {
      this.stdout += chunk;
    });
    this.process.stderr?.on("data", (chunk) => {
      this.stderr += chunk;
    });
    this.exit = once(this.process, "close").then(([code, signal]) => code ?? signal);
    onTestFinished(() => {
      this.process.kill("SIGKILL");
    });
  }

  get events(): { type: string; name?: string; position: number; holder?: { metadataText: string } }[] {
    const lines = this.stdout.split("\n").slice(0, -1);
    return lines.map((line) => JSON.parse(line));
  }

  types = () => this.events.map(({ type }) => type);

  says = (text: string) => until(() => this.stdout.includes(text), 20_000, `${text} (${this.stdout}${this.stderr})`);
}

describe("watch", () => {
  test("the state, then what happens, until a signal", async () => {
    const { server, client } = await serverAndClient();
    const held = await client.acquire("orders/1");
    const watch = new Watch(server, ["orders/"]);
    await watch.says("synced");
    const other = await client.acquire("orders/2");
    await client.acquire("elsewhere");
    await held.release();
    await watch.says("released");
    watch.process.kill("SIGINT");
    expect([await watch.exit, watch.stderr]).toEqual([0, ""]);
    const lines = watch.stdout.trimEnd().split("\n");
    expect(lines.map((line) => line.replace(/^[\d:.]{12} {2} *(\d+|-) {2}/, ""))).toEqual([
      "reset        the state follows",
      "state        orders/1  token 1  me",
      "synced       that was the state; now what happens",
      `granted      orders/2  token ${other.token}  me`,
      "released     orders/1  token 1",
    ]);
  });

  test("JSON, of one lock, from a position on", async () => {
    const { server, client } = await serverAndClient();
    const first = new Watch(server, ["--name", "orders/1", "--json", "--from-now"]);
    // When it has begun is seen by what it tells.
    while (first.stdout === "") await client.withLock("orders/1", { metadata: "one" }, () => {});
    await client.withLock("orders/1", { metadata: "one" }, () => {});
    const granted = () => first.events.findIndex(({ type }) => type === "granted");
    await until(() => granted() >= 0 && first.events.length > granted() + 1, 20_000, "a grant and its end");
    const [event, next] = first.events.slice(granted());
    expect(event).toMatchObject({ name: "orders/1", holder: { metadataText: "one" } });
    expect(next).toMatchObject({ type: "released", name: "orders/1" });
    const second = new Watch(server, ["--name", "orders/1", "--json", "--after", String(event?.position)]);
    await until(() => second.types().length > 0, 20_000, "the event behind the position");
    expect(second.events[0]).toEqual(next);
    second.process.kill("SIGTERM");
    expect(await second.exit).toBe(0);
  });

  test("a reader that goes away ends it", async () => {
    const { server, client } = await serverAndClient();
    const watch = new Watch(server, ["--json"]);
    await watch.says("synced");
    watch.process.stdout?.destroy();
    const exited = watch.exit.then(() => true);
    let over = false;
    void exited.then(() => {
      over = true;
    });
    while (!over) await client.withLock("orders/1", () => {});
    expect([await watch.exit, watch.stderr]).toEqual([0, ""]);
  });

  test.each([
    [["a", "--name", "b"], 64, "give either a prefix or --name, not both"],
    [["--after", "1", "--from-now"], 64, "cannot be used with"],
    [["--afer", "1"], 64, "(Did you mean --after?)"],
    [["--addr", "127.0.0.1:1"], 69, "cannot reach 127.0.0.1:1"],
  ])("%j: exit code %d", async (args, code, text) => {
    expect(await leasehold(["watch", ...args])).toMatchObject({ code, stderr: expect.stringContaining(text) });
  });
});

describe("locks", () => {
  test("describe names who is in the way of a waiter, through a holder that waits itself", async () => {
    const { server, client } = await serverAndClient();
    const far = await connect(server.address, { owner: "far" });
    onTestFinished(() => far.close());
    const a = await client.acquire("a");
    const b = await far.acquire("b", { metadata: "host 7" });
    const stop = new AbortController();
    const waits = client.acquire("b", { holding: [a], signal: stop.signal });
    const waitsToo = far.acquire("a", { signal: stop.signal });
    for (const name of ["a", "b"]) await until(async () => (await far.describe(name)).waitersTotal === 1, 20_000, name);
    const { stdout } = await leasehold(["locks", "describe", "a", "--addr", server.address]);
    expect(stdout).toMatch(/^held by me for .*, exclusive, token 1, /m);
    expect(stdout).toMatch(
      new RegExp(`^1 +T\\d+ +far +exclusive +\\S+ +yes +token ${b.token} of b \\(far\\), 2 hops$`, "m"),
    );
    expect((await leasehold(["locks", "describe", "b", "--addr", server.address])).stdout).toContain("metadata host 7");
    stop.abort();
    await Promise.allSettled([waits, waitsToo]);
  });

  test("the list has modes, numbers of holders, permits", async () => {
    const { server, client } = await serverAndClient();
    for (let i = 0; i < 2; i++) await client.acquire("readers", { mode: "shared" });
    for (let i = 0; i < 2; i++) await client.acquire("pool", { permits: { of: 5, take: 2 } });
    const { stdout } = await leasehold(["locks", "--addr", server.address]);
    expect(stdout).toMatch(/^pool +semaphore 4\/5 +2 +\d+ +me, \.\.\. /m);
    expect(stdout).toMatch(/^readers +shared +2 +\d+ +me, \.\.\. /m);
  });
});

test("top tells of what is held and waited for", async () => {
  const { server, client } = await serverAndClient();
  await client.acquire("held");
  for (let i = 0; i < 20; i++) await client.withLock("busy", () => {});
  const { code, stdout } = await leasehold(["top", "--json", "--addr", server.address]);
  expect(code).toBe(0);
  expect(JSON.parse(stdout)).toMatchObject({
    ...{ serving: true, holds: 1, tokensPerSecond: null, longestWaits: [] },
    hottest: expect.arrayContaining([{ name: "busy", grantsPerSecond: expect.any(Number) }]),
    longestHolds: [{ name: "held", holder: { owner: "me", token: 1 } }],
  });
});

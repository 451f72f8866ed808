/** Processes that stop running while others wait: clients and the server itself. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { createInterface, type Interface } from "node:readline";
import { expect, onTestFinished, test } from "vitest";
import { connect } from "../../src/client/index.js";
import { RawSession } from "./raw-session.js";
import { root, ServerProcess, temporaryFolder, until } from "./support.js";

const TTL_MS = 1_500;

interface Looked {
  readonly step: string;
  readonly token: number | null;
  readonly code: string | null;
  readonly state: string;
  readonly reason: string | null;
  readonly aborted: boolean;
}

class StallingClient {
  readonly #child: ChildProcess;
  readonly #lines: Interface;
  token = 0;

  private constructor(address: string, name: string) {
    const script = join(root, "test/e2e/stalling-client.mjs");
    this.#child = spawn(process.execPath, [script, address, name, `${TTL_MS}ms`], {
      stdio: ["pipe", "pipe", "inherit"],
    });
    this.#lines = createInterface({ input: this.#child.stdout as NodeJS.ReadableStream });
    onTestFinished(async () => {
      if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
      this.#child.kill("SIGKILL");
      await once(this.#child, "exit");
    });
  }

  static async holding(address: string, name: string): Promise<StallingClient> {
    const client = new StallingClient(address, name);
    client.token = (await client.next()).token as number;
    return client;
  }

  tell(line: string): void {
    this.#child.stdin?.write(`${line}\n`);
  }

  signal(signal: NodeJS.Signals): void {
    this.#child.kill(signal);
  }

  async next(): Promise<Looked> {
    const [line] = (await once(this.#lines, "line")) as [string];
    return JSON.parse(line) as Looked;
  }
}

async function serverAndNext(name: string) {
  const server = await ServerProcess.start(`level:${await temporaryFolder()}/data`);
  const holder = await StallingClient.holding(server.address, name);
  const other = await connect(server.address);
  onTestFinished(() => other.close());
  return { server, holder, other };
}

test("a client whose event loop is blocked for 1.5 x TTL knows at once that it has lost its lock", async () => {
  const { holder, other } = await serverAndNext("a");
  const next = other.acquire("a");
  holder.tell(`busy ${1.5 * TTL_MS}`);
  const looked = await holder.next();
  expect(looked).toMatchObject({ token: null, code: "LOST", state: "lost", aborted: true });
  expect((await next).token).toBeGreaterThan(holder.token);
});

test("a client that was stopped past its TTL gets LOST instead of its token when it wakes", async () => {
  const { holder, other } = await serverAndNext("a");
  const next = other.acquire("a");
  holder.signal("SIGSTOP");
  expect((await next).token, "the next one is granted while the holder sleeps").toBeGreaterThan(holder.token);
  holder.tell("look"); // it reads this before any timer of its own, or after: it makes no difference
  holder.signal("SIGCONT");
  expect(await holder.next()).toMatchObject({ token: null, code: "LOST", state: "lost", aborted: true });
});

test("a client that was stopped for less than its TTL still holds", async () => {
  const { holder, other } = await serverAndNext("a");
  holder.signal("SIGSTOP");
  holder.tell("look");
  holder.signal("SIGCONT");
  expect(await holder.next()).toMatchObject({ token: holder.token, code: null, aborted: false });
  expect(await other.validate("a", holder.token)).toBe(true);
});

test("the server is stopped for longer than the TTL while renewals wait in its sockets: no lease is lost on waking", async () => {
  const server = await ServerProcess.start(`level:${await temporaryFolder()}/data`);
  const sessions = await Promise.all(Array.from({ length: 20 }, () => RawSession.open(server.address)));
  const tokens = await Promise.all(
    sessions.map(async (session, i) => {
      await session.send({ createLease: { ttlMs: TTL_MS } });
      const { acquire } = await session.send({ acquire: { name: `lock-${i}`, sessionLease: 1 } });
      return acquire?.grant?.token as number;
    }),
  );
  const renewals = setInterval(() => {
    for (const session of sessions) session.renew();
  }, TTL_MS / 5);
  onTestFinished(() => clearInterval(renewals));

  for (let round = 0; round < 3; round++) {
    server.signal("SIGSTOP");
    const stoppedAtMs = performance.now();
    await until(() => performance.now() - stoppedAtMs > 2 * TTL_MS);
    server.signal("SIGCONT");
    const wokeAtMs = performance.now();
    await until(() => performance.now() - wokeAtMs > 1.5 * TTL_MS); // long enough for an expiry that was owed
    const held = await Promise.all(
      sessions.map(async (session, i) => {
        const { validate } = await session.send({ validate: { name: `lock-${i}`, token: tokens[i] as number } });
        return validate?.held;
      }),
    );
    expect(held).toEqual(tokens.map(() => true));
  }
  expect(await server.metric('leasehold_lease_ends_total{reason="expired"}')).toBe(0);
  for (const session of sessions) session.close();
});

test("a server that is stopped for longer than the TTL does not keep the locks of those who are gone", async () => {
  const server = await ServerProcess.start(`level:${await temporaryFolder()}/data`);
  const gone = await RawSession.open(server.address);
  await gone.send({ createLease: { ttlMs: TTL_MS } });
  await gone.send({ acquire: { name: "a", sessionLease: 1 } });
  gone.close();
  server.signal("SIGSTOP");
  const stoppedAtMs = performance.now();
  await until(() => performance.now() - stoppedAtMs > TTL_MS);
  server.signal("SIGCONT");
  const client = await connect(server.address);
  onTestFinished(() => client.close());
  expect((await client.acquire("a", { wait: "20s" })).state.is).toBe("held");
});

/**
 * Wall clocks that are wrong by hours, and that jump, in real processes: locks and leases behave as ever; only the metrics
 * and `leasehold status` tell whose clock it is.
 */
import { type ChildProcess, execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { createInterface, type Interface } from "node:readline";
import { promisify } from "node:util";
import { expect, onTestFinished, test } from "vitest";
import { describeWithServices } from "../services/vitest.js";
import { FakeClock } from "./faketime.js";
import { cli, root, ServerProcess, temporaryFolder, until } from "./support.js";
import { UnaryClient } from "./unary-client.js";

const TTL_MS = 2_000;
const HOUR_MS = 3_600_000;

interface Looked {
  readonly wallMs: number;
  readonly lost: readonly string[];
  readonly held: readonly string[];
}

/** `skew-client.mjs` in a process of its own. */
class ClientProcess {
  readonly #child: ChildProcess;
  readonly #lines: Interface;
  /** What was asked and not answered yet, in order. */
  readonly #asked: ((answer: Record<string, unknown>) => void)[] = [];

  private constructor(
    server: ServerProcess,
    readonly owner: string,
    clock: FakeClock | null,
    ttlMs: number,
  ) {
    const args = [join(root, "test/e2e/skew-client.mjs"), server.address, owner, `${ttlMs}ms`];
    const env = clock?.env ?? process.env;
    this.#child = spawn(process.execPath, args, { env, stdio: ["pipe", "pipe", "inherit"] });
    this.#lines = createInterface({ input: this.#child.stdout as NodeJS.ReadableStream });
    this.#lines.on("line", (line) => this.#asked.shift()?.(JSON.parse(line)));
    onTestFinished(() => this.kill());
  }

  static async start(
    server: ServerProcess,
    owner: string,
    clock: FakeClock | null = null,
    ttlMs = TTL_MS,
  ): Promise<ClientProcess> {
    const client = new ClientProcess(server, owner, clock, ttlMs);
    await client.#answer();
    return client;
  }

  #answer<T = Record<string, unknown>>(): Promise<T> {
    return new Promise((resolve, reject) => {
      this.#asked.push((answer) =>
        "error" in answer ? reject(new Error(String(answer.error))) : resolve(answer as T),
      );
    });
  }

  #ask<T>(line: string): Promise<T> {
    this.#child.stdin?.write(`${line}\n`);
    return this.#answer<T>();
  }

  take = (name: string) => this.#ask<{ token: number }>(`take ${name}`);
  contend = (name: string, times: number, file: string) =>
    this.#ask<{ tokens: number[] }>(`contend ${name} ${times} ${file}`);
  look = () => this.#ask<Looked>("look");

  async kill(): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    this.#child.kill("SIGKILL");
    await once(this.#child, "exit");
  }
}

interface Skew {
  readonly measured: number;
  readonly skewed: number;
  readonly serverAheadMs: number;
  readonly clients: readonly { owner: string; offsetMs: number; errorMs: number; leaseDisplayId: string }[];
}

const run = promisify(execFile);
const status = async (server: ServerProcess, ...flags: string[]) =>
  (await run(process.execPath, [cli, "status", "--addr", server.address, ...flags])).stdout;
const skewOf = async (server: ServerProcess): Promise<Skew> =>
  JSON.parse(await status(server, "--json")).clockSkew as Skew;

/** Waits until Status names just these, with offsets that are right give or take what it says. */
async function untilNamed(server: ServerProcess, expected: Readonly<Record<string, number>>): Promise<Skew> {
  let skew = await skewOf(server);
  const right = () =>
    skew.skewed === Object.keys(expected).length &&
    skew.clients.every(({ owner, offsetMs, errorMs }) => {
      const truth = expected[owner];
      return truth !== undefined && errorMs > 0 && errorMs < 300 && Math.abs(offsetMs - truth) <= errorMs;
    });
  await until(
    async () => {
      if (!right()) skew = await skewOf(server);
      return right();
    },
    30_000,
    `that ${JSON.stringify(expected)} are named`,
  ).catch((error: unknown) => {
    throw new Error(`${String(error)}; Status has ${JSON.stringify(skew)}`);
  });
  return skew;
}

/** Several times the TTL pass: what a wall clock could spoil is spoilt by now. */
async function untilRenewed(server: ServerProcess, times: number): Promise<void> {
  const renewals = () => server.metric('leasehold_lease_renewals_total{result="ok"}');
  const before = await renewals();
  await until(async () => (await renewals()) >= before + times, 60_000, `${times} renewals`);
}

/** The lock of a client that dies goes to the next one when its lease is over: not at once, and not much later. */
async function expectExpiry(dies: ClientProcess, next: ClientProcess): Promise<void> {
  const name = `of/${dies.owner}`;
  const { token } = await dies.take(name);
  const taken = next.take(name);
  await dies.kill();
  const killedMs = performance.now();
  expect((await taken).token).toBeGreaterThan(token);
  const tookMs = performance.now() - killedMs;
  expect(tookMs).toBeGreaterThan(TTL_MS / 4); // it had been renewed half a TTL before at the earliest
  expect(tookMs).toBeLessThan(TTL_MS + 15_000);
}

async function expectExclusion(clients: readonly ClientProcess[]): Promise<void> {
  const file = join(await temporaryFolder(), "somebody is here");
  const all = await Promise.all(clients.map((client) => client.contend("contended", 40, file)));
  for (const { tokens } of all) expect(tokens).toEqual([...tokens].sort((a, b) => a - b));
  expect(new Set(all.flatMap(({ tokens }) => tokens)).size).toBe(clients.length * 40);
}

describeWithServices("wall clocks that are wrong", ["faketime"], () => {
  test("of clients: they hold, wait for and lose locks like any other, and are named", async () => {
    const server = await ServerProcess.start(`level:${await temporaryFolder()}/data`);
    const jumping = await FakeClock.ahead(0);
    const clients = {
      right: await ClientProcess.start(server, "right/1"),
      ahead: await ClientProcess.start(server, "ahead/1", await FakeClock.ahead(90_000)),
      behind: await ClientProcess.start(server, "behind/1", await FakeClock.ahead(-HOUR_MS)),
      jumping: await ClientProcess.start(server, "jumping/1", jumping),
    };
    const all = Object.values(clients);
    await Promise.all(all.map((client) => client.take(`own/${client.owner}`)));
    const wrong = { "ahead/1": 90_000, "behind/1": -HOUR_MS };
    await until(async () => (await skewOf(server)).measured === all.length, 30_000, "a look at all clocks");
    const skew = await untilNamed(server, wrong);
    expect(skew).toMatchObject({ measured: 4, serverAheadMs: 0 });
    expect(skew.clients.map(({ owner }) => owner)).toEqual(["behind/1", "ahead/1"]);
    expect(await status(server)).toMatch(
      /^clocks +2 of 4 clients off by more than 500ms\n +behind\/1 is 1h behind \(±/m,
    );
    expect(await status(server)).toMatch(/^ +ahead\/1 is 1m30s ahead \(±/m);
    expect(await server.metric("leasehold_clients_clock_skewed")).toBe(2);
    expect(await server.metric("leasehold_clients_clock_measured")).toBe(4);
    expect(Math.abs((await server.metric("leasehold_client_clock_offset_max_seconds")) - 3_600)).toBeLessThan(1);

    await jumping.set(2 * HOUR_MS);
    await untilNamed(server, { ...wrong, "jumping/1": 2 * HOUR_MS });
    await expectExclusion(all);
    await jumping.set(-HOUR_MS / 2);
    await untilNamed(server, { ...wrong, "jumping/1": -HOUR_MS / 2 });
    await jumping.set(0);
    await untilNamed(server, wrong);
    await untilRenewed(server, all.length * 4);
    for (const client of all) expect(await client.look(), client.owner).toMatchObject({ lost: [], held: ["held"] });
    const { wallMs } = await clients.behind.look();
    expect(Math.abs(wallMs - Date.now() + HOUR_MS)).toBeLessThan(30_000); // the clock was wrong indeed

    await expectExpiry(clients.ahead, clients.behind);
    await expectExpiry(clients.jumping, clients.right);
    await untilNamed(server, { "behind/1": -HOUR_MS });
    const lines = server.log.split("\n").filter((line) => line.includes("the wall clock of a client"));
    const told = (owner: string, what: string) => lines.some((line) => line.includes(owner) && line.includes(what));
    expect([told("ahead/1", "is off"), told("ahead/1", "right again")]).toEqual([true, false]);
    expect([told("jumping/1", "is off"), told("jumping/1", "right again")]).toEqual([true, true]);
    expect(told("right/1", "")).toBe(false);
  }, 180_000);

  test("of the server: it serves like any other, and says that its own clock is probably the one", async () => {
    const clock = await FakeClock.ahead(0);
    const server = await ServerProcess.startIn(clock.env, `level:${await temporaryFolder()}/data`);
    const a = await ClientProcess.start(server, "a/1");
    const b = await ClientProcess.start(server, "b/1");
    const c = await ClientProcess.start(server, "c/1");
    const d = await ClientProcess.start(server, "d/1");
    const all = [a, b, c, d];
    await Promise.all(all.map((client) => client.take(`own/${client.owner}`)));
    await untilNamed(server, {});
    for (const aheadMs of [-HOUR_MS, 2 * HOUR_MS]) {
      await clock.set(aheadMs);
      const expected = Object.fromEntries(all.map(({ owner }) => [owner, -aheadMs]));
      const skew = await untilNamed(server, expected);
      expect(Math.abs(skew.serverAheadMs - aheadMs)).toBeLessThan(500);
      const words = aheadMs < 0 ? "1h behind" : "2h ahead";
      expect(await status(server)).toMatch(new RegExp(`^ +most agree that this server is ${words}: its clock`, "m"));
      await expectExclusion(all);
      await untilRenewed(server, all.length * 4);
    }
    for (const client of all) expect(await client.look(), client.owner).toMatchObject({ lost: [], held: ["held"] });
    await expectExpiry(a, b);
    // The clock jumps while a lease runs out.
    const { token } = await c.take("last");
    const taken = d.take("last");
    await c.kill();
    const killedMs = performance.now();
    await clock.set(30 * 24 * HOUR_MS);
    await server.metric("leasehold_journal_up");
    await clock.set(-30 * 24 * HOUR_MS);
    expect((await taken).token).toBeGreaterThan(token);
    expect(performance.now() - killedMs).toBeGreaterThan(TTL_MS / 4);
    await clock.set(0);
    await untilNamed(server, {});
  }, 180_000);

  test("of clients that make unary calls: they tell their clock with their renewals", async () => {
    const server = await ServerProcess.start("memory:");
    const client = new UnaryClient(server.address);
    let roundTripMs = 0;
    /** As the comments of the protocol say it. */
    const timed = async <T>(call: (told: { wallClockMs: number; roundTripMs: number }) => Promise<T>): Promise<T> => {
      const startedMs = performance.now();
      const answer = await call({ wallClockMs: Date.now() - 90_000, roundTripMs });
      roundTripMs = Math.max(1, Math.ceil(performance.now() - startedMs));
      return answer;
    };
    const { lease } = await timed(({ wallClockMs }) =>
      client.call("CreateLease", { ttlMs: 60_000, owner: "py/1", wallClockMs }),
    );
    const leaseId = lease?.leaseId ?? "";
    expect((await skewOf(server)).clients).toMatchObject([{ owner: "py/1", errorMs: 0 }]);
    expect(await status(server)).toMatch(/py\/1 is about 1m30s behind, measured/);
    await timed((told) => client.call("RenewLease", { leaseId, ...told }));
    const skew = await untilNamed(server, { "py/1": -90_000 });
    expect(skew.clients[0]?.leaseDisplayId).toMatch(/^L/);
    await client.call("RevokeLease", { leaseId });
    expect(await skewOf(server)).toMatchObject({ measured: 0, skewed: 0 });
  });

  test("and a server that stood still takes no client's clock for wrong", async () => {
    const server = await ServerProcess.start("memory:", "--clock-skew-warn-ms", "100ms");
    const client = await ClientProcess.start(server, "a/1", null, 6_000);
    await client.take("a");
    await untilRenewed(server, 2);
    // A renewal falls into this time, every two seconds, and waits in the socket.
    server.signal("SIGSTOP");
    const stoppedMs = performance.now();
    await until(() => performance.now() - stoppedMs > 2_600);
    server.signal("SIGCONT");
    await untilRenewed(server, 1);
    expect(await skewOf(server)).toMatchObject({ measured: 1, skewed: 0 });
    expect(await server.metric("leasehold_client_clock_offset_max_seconds")).toBeLessThan(0.1);
    await untilRenewed(server, 2);
    expect(await skewOf(server)).toMatchObject({ measured: 1, skewed: 0 });
    expect(server.log).not.toContain("the wall clock of a client");
  });
});

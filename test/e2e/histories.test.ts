/**
 * What clients see while everything around them fails, checked afterwards: many processes take locks in all modes and
 * record what they are told; meanwhile the server is killed and stopped, clients are killed and stopped, and connections
 * are cut, refused and held up. The rules that the history must keep are those of `leasehold verify`.
 */
import { type ChildProcess, fork } from "node:child_process";
import { once } from "node:events";
import { createReadStream } from "node:fs";
import { join } from "node:path";
import { expect, onTestFinished, test } from "vitest";
import { checkHistory, readHistory } from "../../src/verify/check.js";
import { Network, root, ServerProcess, temporaryFolder, until } from "./support.js";
import { mulberry32 } from "./told.js";

const ROUNDS = Number(process.env.LEASEHOLD_HISTORY_ROUNDS ?? 1);
const CLIENTS = 4;
const TTL_MS = 700;

/** Refuses tokens lower than the highest one that it has seen. */
class Storage {
  readonly #floors = new Map<string, number>();
  refused = 0;

  write(resource: string, token: number): boolean {
    const accepted = token >= (this.#floors.get(resource) ?? 0);
    if (accepted) this.#floors.set(resource, token);
    else this.refused++;
    return accepted;
  }
}

interface Write {
  readonly id: number;
  readonly resource: string;
  readonly token: number;
}

class RecordingClient {
  readonly #child: ChildProcess;
  readonly #exit: Promise<[number | null, NodeJS.Signals | null]>;
  grants = 0;
  /** Locks that it has found lost. */
  lost = 0;

  private constructor(
    readonly network: Network,
    readonly file: string,
    storage: Storage,
    seed: number,
  ) {
    const script = join(root, "test/e2e/history-client.mjs");
    this.#child = fork(script, [network.address, file, `${TTL_MS}ms`, String(seed)], { execArgv: [] });
    this.#exit = once(this.#child, "exit") as Promise<[number | null, NodeJS.Signals | null]>;
    this.#child.on("message", (message: "granted" | "lost" | Write) => {
      if (message === "granted") this.grants++;
      else if (message === "lost") this.lost++;
      else
        this.#child.send({ id: message.id, accepted: storage.write(message.resource, message.token) }, () => undefined);
    });
    onTestFinished(() => this.kill());
  }

  static async start(server: ServerProcess, file: string, storage: Storage, seed: number): Promise<RecordingClient> {
    return new RecordingClient(await Network.to(server.address), file, storage, seed);
  }

  signal(signal: NodeJS.Signals): void {
    this.#child.kill(signal);
  }

  async kill(): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    this.#child.kill("SIGKILL");
    await this.#exit;
  }

  /** Lets it end by itself. Returns its exit code. */
  async end(): Promise<number | null> {
    this.#child.send("end");
    return (await this.#exit)[0];
  }
}

class Trouble {
  readonly clients: RecordingClient[] = [];
  readonly files: string[] = [];
  readonly storage = new Storage();
  restarts = 0;
  #killedGrants = 0;

  constructor(
    readonly server: ServerProcess,
    private readonly folder: string,
    private readonly random: () => number,
  ) {}

  get grants(): number {
    return this.clients.reduce((sum, client) => sum + client.grants, this.#killedGrants);
  }

  async addClient(): Promise<void> {
    const file = join(this.folder, `history-${this.files.length}.jsonl`);
    this.files.push(file);
    this.clients.push(await RecordingClient.start(this.server, file, this.storage, Math.floor(this.random() * 1e9)));
  }

  any(): RecordingClient {
    return this.clients[Math.floor(this.random() * this.clients.length)] as RecordingClient;
  }

  /** Until so many more locks have been granted, to whomever. */
  async someGrants(count = 20 + Math.floor(this.random() * 60)): Promise<void> {
    const before = this.grants;
    await until(() => this.grants >= before + count, 30_000, `${count} more grants`);
  }

  /** Longer than a lease lives. */
  async longTime(): Promise<void> {
    const sinceMs = performance.now();
    await until(() => performance.now() - sinceMs > 1.3 * TTL_MS);
  }

  readonly kinds: readonly (() => Promise<void>)[] = [
    async () => {
      await this.server.kill();
      await this.server.restart();
      this.restarts++;
    },
    async () => {
      this.server.signal("SIGSTOP");
      await this.longTime();
      this.server.signal("SIGCONT");
    },
    async () => {
      const client = this.any();
      client.signal("SIGSTOP");
      await this.longTime();
      await this.someGrants(5);
      client.signal("SIGCONT");
    },
    async () => {
      // All but one: so many locks are lost at once. Each may just be between two locks, or waiting: until one was not.
      const clients = this.clients.slice(1);
      const lost = () => clients.reduce((sum, client) => sum + client.lost, 0);
      for (const before = lost(); lost() === before; await this.someGrants(5)) {
        for (const client of clients) client.signal("SIGSTOP");
        await this.longTime();
        for (const client of clients) client.signal("SIGCONT");
      }
    },
    async () => {
      const client = this.any();
      this.clients.splice(this.clients.indexOf(client), 1);
      this.#killedGrants += client.grants;
      await client.kill();
      await this.addClient();
    },
    async () => {
      for (const { network } of this.clients) network.cut();
    },
    async () => {
      const { network } = this.any();
      network.refuse();
      network.cut();
      await this.longTime();
      network.accept();
    },
    async () => {
      const { network } = this.any();
      network.holdToClient();
      await this.longTime();
      network.flow();
    },
    async () => {
      const { network } = this.any();
      network.holdToServer();
      await this.longTime();
      if (this.random() < 0.5) network.cut();
      network.flow();
    },
  ];
}

test(`recorded histories keep the rules while everything fails, ${ROUNDS} rounds`, async () => {
  const seed = Number(process.env.LEASEHOLD_SEED ?? Date.now() % 1e9);
  console.log(`seed ${seed}`);
  const random = mulberry32(seed);
  const folder = await temporaryFolder();
  const server = await ServerProcess.start(`level:${folder}/data`);
  const trouble = new Trouble(server, folder, random);
  for (let i = 0; i < CLIENTS; i++) await trouble.addClient();

  for (let round = 0; round < ROUNDS; round++) {
    const kinds = trouble.kinds.map((kind) => ({ kind, at: random() })).sort((a, b) => a.at - b.at);
    for (const { kind } of kinds) {
      await trouble.someGrants();
      await kind();
    }
  }
  await trouble.someGrants();
  for (const client of trouble.clients) expect(await client.end(), "the client ended well").toBe(0);
  expect(await server.stop()).toBe(0);

  const sources = trouble.files.map((name) => ({ name, chunks: createReadStream(name) }));
  const history = await readHistory(sources);
  const findings = checkHistory(history);
  const count = (op: string, outcome: "ok" | "fail" | "unknown") => history.counts.get(op)?.[outcome] ?? 0;
  const lost = count("refresh", "fail");
  console.log(
    `${history.events} events of ${history.processes.size} clients: ${history.grants} grants, ${lost} found lost, ` +
      `${count("downgrade", "ok")} downgrades, ${count("transfer", "ok")} transfers, ${count("write", "ok")} writes ` +
      `(${trouble.storage.refused} refused), ${count("observe", "ok")} leaders seen, ${trouble.restarts} restarts`,
  );
  expect(findings.flatMap(({ violations }) => violations)).toEqual([]);
  expect(history.grants).toBeGreaterThan(300 * ROUNDS);
  expect(lost).toBeGreaterThanOrEqual(ROUNDS);
  expect(trouble.restarts).toBe(ROUNDS);
  for (const op of ["downgrade", "transfer", "write", "observe", "range"])
    expect(count(op, "ok"), op).toBeGreaterThan(5);
}, 3_600_000);

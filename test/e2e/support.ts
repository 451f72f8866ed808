/** Real servers in processes of their own, and a network between them and their clients that does what a test wants. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { type AddressInfo, createServer, type Server, type Socket, connect as tcpConnect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { onTestFinished } from "vitest";

export const root = fileURLToPath(new URL("../..", import.meta.url));
export const cli = join(root, "dist/cli/main.js");

/** A folder that is gone when the test is over. */
export async function temporaryFolder(): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), "leasehold-test-"));
  onTestFinished(() => rm(folder, { recursive: true, force: true }));
  return folder;
}

/** Resolves when `condition` holds; rejects when it does not within the time. */
export async function until(condition: () => boolean | Promise<boolean>, msMax = 20_000, what = "it"): Promise<void> {
  const deadlineMs = performance.now() + msMax;
  while (!(await condition())) {
    if (performance.now() > deadlineMs) throw new Error(`${what} did not happen within ${msMax} ms`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

/** `leasehold serve` as a process. Ended when the test is over, whatever happens. */
export class ServerProcess {
  #child!: ChildProcess;
  #exit!: Promise<[number | null, NodeJS.Signals | null]>;
  /** Everything that it has logged. */
  log = "";
  address = "";
  opsAddress = "";

  private constructor(
    readonly store: string,
    private readonly flags: readonly string[],
    private readonly env: NodeJS.ProcessEnv,
  ) {}

  static start(store: string, ...flags: string[]): Promise<ServerProcess> {
    return ServerProcess.startIn(process.env, store, ...flags);
  }

  /** In an environment of its own. */
  static async startIn(env: NodeJS.ProcessEnv, store: string, ...flags: string[]): Promise<ServerProcess> {
    const server = new ServerProcess(store, flags, env);
    onTestFinished(() => server.kill());
    await server.restart();
    return server;
  }

  /** Starts it, at the same address as before if there was one. */
  async restart(): Promise<void> {
    await this.spawn();
    await this.serving();
  }

  private async spawn(): Promise<void> {
    const listen = ["--listen", this.address || "127.0.0.1:0", "--ops-listen", this.opsAddress || "127.0.0.1:0"];
    this.#child = spawn(process.execPath, [cli, "serve", ...listen, "--store", this.store, ...this.flags], {
      stdio: ["ignore", "pipe", "pipe"],
      env: this.env,
    });
    this.#exit = once(this.#child, "exit") as Promise<[number | null, NodeJS.Signals | null]>;
    this.#child.stderr?.on("data", (chunk) => {
      this.log += chunk;
    });
  }

  private serving(): Promise<void> {
    return new Promise((resolve, reject) => {
      const lines = createInterface({ input: this.#child.stdout as NodeJS.ReadableStream });
      lines.on("line", (line) => {
        this.log += `${line}\n`;
        if (!line.includes('"serving"')) return;
        const entry = JSON.parse(line) as { address: string; opsAddress: string };
        this.address = entry.address;
        this.opsAddress = entry.opsAddress;
        resolve();
      });
      void this.#exit.then(([code, signal]) => reject(new Error(`the server ended (${code ?? signal}):\n${this.log}`)));
    });
  }

  get pid(): number {
    return this.#child.pid as number;
  }

  signal(signal: NodeJS.Signals): void {
    this.#child.kill(signal);
  }

  /** `kill -9`, if it is running. */
  async kill(): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    this.#child.kill("SIGKILL");
    await this.#exit;
  }

  /** SIGTERM; resolves with the exit code. */
  async stop(): Promise<number | null> {
    this.#child.kill("SIGTERM");
    return (await this.#exit)[0];
  }

  async metric(name: string): Promise<number> {
    const text = await (await fetch(`http://${this.opsAddress}/metrics`)).text();
    const line = text
      .split("\n")
      .find((candidate) => candidate.startsWith(`${name} `) || candidate.startsWith(`${name}{`));
    if (line === undefined) throw new Error(`no metric ${name}`);
    return Number(line.slice(line.lastIndexOf(" ") + 1));
  }
}

/** A TCP proxy whose two directions can be held up, and whose connections can be cut. */
export class Network {
  #server!: Server;
  readonly #pairs = new Set<{ client: Socket; server: Socket }>();
  #toClientHeld = false;
  #toServerHeld = false;
  #refusing = false;

  private constructor(private readonly target: string) {}

  static async to(target: string): Promise<Network> {
    const network = new Network(target);
    network.#server = createServer((client) => network.connect(client));
    network.#server.listen(0, "127.0.0.1");
    await once(network.#server, "listening");
    onTestFinished(() => {
      network.cut();
      network.#server.close();
    });
    return network;
  }

  get address(): string {
    return `127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  private connect(client: Socket): void {
    client.on("error", () => undefined);
    if (this.#refusing) {
      client.destroy();
      return;
    }
    const [host, port] = this.target.split(":") as [string, string];
    const server = tcpConnect(Number(port), host);
    server.on("error", () => undefined);
    const pair = { client, server };
    this.#pairs.add(pair);
    client.on("data", (chunk) => server.write(chunk));
    server.on("data", (chunk) => client.write(chunk));
    client.on("close", () => {
      server.destroy();
      this.#pairs.delete(pair);
    });
    server.on("close", () => client.destroy());
    if (this.#toClientHeld) server.pause();
    if (this.#toServerHeld) client.pause();
  }

  /** What the server sends does not arrive until `flow`. */
  holdToClient(): void {
    this.#toClientHeld = true;
    for (const { server } of this.#pairs) server.pause();
  }

  /** What the client sends does not arrive until `flow`. */
  holdToServer(): void {
    this.#toServerHeld = true;
    for (const { client } of this.#pairs) client.pause();
  }

  /** Everything that was held arrives. */
  flow(): void {
    this.#toClientHeld = false;
    this.#toServerHeld = false;
    for (const { client, server } of this.#pairs) {
      client.resume();
      server.resume();
    }
  }

  /** All connections break; what was held is lost. */
  cut(): void {
    for (const { client, server } of this.#pairs) {
      client.destroy();
      server.destroy();
    }
    this.#toClientHeld = false;
    this.#toServerHeld = false;
  }

  /** New connections are refused until `accept`. */
  refuse(): void {
    this.#refusing = true;
  }

  accept(): void {
    this.#refusing = false;
  }
}

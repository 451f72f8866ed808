/** `leasehold run` and `leasehold elect` as processes, with commands of several processes under them. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import { type Client, connect } from "@leasehold/client";
import { onTestFinished } from "vitest";
import { environment, program } from "../cli/support.js";
import type { Address } from "../e2e/in-process.js";
import { ServerProcess, temporaryFolder, until } from "../e2e/support.js";
import { guardianOf, TreeLog } from "./processes.js";

export const tree = fileURLToPath(new URL("./tree.mjs", import.meta.url));
export const LOCK = "nightly/report";
/** About as short as the rules allow. */
export const SHORT = ["--ttl", "2s", "--kill-after", "300ms"];

export class Run {
  readonly #process: ChildProcess;
  stdout = "";
  stderr = "";
  readonly #exit: Promise<number | string>;
  ended = false;

  constructor(server: Address, args: readonly string[], env: Readonly<Record<string, string>> = {}, command = "run") {
    this.#process = spawn(process.execPath, [program, command, ...args], {
      env: environment({ LEASEHOLD_ADDR: server.address, ...env }),
      stdio: ["pipe", "pipe", "pipe"],
      detached: true,
    });
    this.#process.stdout?.on("data", (chunk) => {
      this.stdout += chunk;
    });
    this.#process.stderr?.on("data", (chunk) => {
      this.stderr += chunk;
    });
    this.#exit = once(this.#process, "close").then(([code, signal]) => {
      this.ended = true;
      return code ?? signal;
    });
    onTestFinished(() => {
      this.#process.kill("SIGKILL");
    });
  }

  get pid(): number {
    return this.#process.pid as number;
  }

  signal(signal: NodeJS.Signals): void {
    this.#process.kill(signal);
  }

  input(text: string): void {
    this.#process.stdin?.end(text);
  }

  async saysOnStdout(text: string): Promise<void> {
    await until(() => this.stdout.includes(text), 20_000, `${JSON.stringify(text)} on stdout`);
  }

  /** The exit code, or the signal that killed it. */
  exit(): Promise<number | string> {
    return this.#exit;
  }

  get guardian(): number {
    return guardianOf(this.pid)?.pid as number;
  }
}

export const memoryProcess = () => ServerProcess.start("memory:");
export const node = (script: string): string[] => ["--", process.execPath, "-e", script];

export async function client(server: Address): Promise<Client> {
  const connected = await connect(server.address);
  onTestFinished(() => connected.close());
  return connected;
}

/** Runs a command of several processes under the lock. */
export async function runTree(server: Address, roles: string[], flags: readonly string[] = SHORT) {
  const log = new TreeLog(await temporaryFolder());
  const run = new Run(server, [...flags, LOCK, "--", process.execPath, tree, log.folder, ...roles]);
  onTestFinished(() => {
    for (const pid of log.alive) process.kill(pid, "SIGKILL");
  });
  await until(() => log.pids.length === roles.length, 20_000, `the start of the command (${run.stderr})`);
  return { log, run };
}

/** Waits for the lock; resolves at the grant with the processes of the command that live at that moment. */
export async function aliveAtNextGrant(server: Address, log: TreeLog): Promise<{ granted: Promise<number[]> }> {
  const contender = await client(server);
  let granted: Promise<number[]> = Promise.resolve([]);
  await new Promise<void>((queued) => {
    granted = contender.acquire(LOCK, { wait: "60s", onQueued: () => queued() }).then((_lock) => log.alive);
    granted.then(
      () => queued(),
      () => queued(),
    );
  });
  return { granted };
}

// @ts-check
/**
 * Servers as processes that do not outlive the process which started them, not even if that one is killed by SIGKILL.
 *
 * A handler for "exit" or SIGTERM does not run on SIGKILL, and a test run that is killed by a time limit would leave
 * databases behind. So there is a watcher, a small shell process, one for each process that uses this file. It reads
 * from a pipe of which its parent has the only other end, and is told of every server. When the pipe ends, its parent
 * is dead, whatever the cause: it ends the servers and removes the temporary folders. No signal from the terminal
 * reaches watcher or servers (each is in a session of its own), so Ctrl-C takes this path as well.
 *
 * The naive order leaves a gap: a server is spawned; its parent is killed; the watcher was never told. So a server's
 * process begins as a shell that waits for a line of input, and becomes the server only then:
 *
 *     spawn shell -> tell the watcher its pid -> send the line -> the shell becomes the server (exec, same pid)
 *
 * If the parent dies before the line, the shell reads the end of its input, and goes.
 */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { chmodSync, chownSync, mkdirSync, mkdtempSync, readFileSync } from "node:fs";
import { rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

const LOG_CHARS_MAX = 200_000;
const LOG_CHARS_IN_ERRORS = 4_000;
const READY_MS = 60_000; // far more than any server needs alone: the machine may be busy with other tests
const STOP_GRACE_MS = 30_000; // for an orderly end: it has data to write
const END_GRACE_MS = 5_000;
const POLL_MS = 10;

/** Reads "started <pid> <signal>" and "ended <pid>"; at the end of its input it ends what is left. */
const WATCHER = `
servers=
while read -r what pid signal; do
  case $what in
    started) servers="$servers $pid:$signal" ;;
    ended)
      rest=
      for server in $servers; do [ "\${server%:*}" = "$pid" ] || rest="$rest $server"; done
      servers=$rest ;;
  esac
done
for server in $servers; do
  kill -s "\${server#*:}" -- "-\${server%:*}"
  kill -s CONT -- "-\${server%:*}" # one that is stopped takes no other signal
done
for turn in 1 2 3 4 5 6 7 8 9 10; do
  alive=
  for server in $servers; do kill -s 0 -- "-\${server%:*}" && alive=1; done
  [ -z "$alive" ] && break
  sleep 0.1
done
for server in $servers; do kill -s KILL -- "-\${server%:*}"; done
for turn in 1 2 3 4 5; do rm -rf -- "$1" && break; sleep 0.1; done # one that is dying may still add a file
`;

/** @type {{ folder: string, tell: (line: string) => void } | undefined} */
let watcher;

/** The watcher and the folder that it removes, made when the first server starts. */
function watching() {
  if (watcher !== undefined) return watcher;
  const folder = mkdtempSync(join(tmpdir(), "leasehold-"));
  chmodSync(folder, 0o755); // servers that run as another user pass through it
  const child = spawn("sh", ["-c", WATCHER, "sh", folder], { detached: true, stdio: ["pipe", "ignore", "ignore"] });
  child.stdin.on("error", () => undefined); // someone has killed the watcher: then there is none
  child.unref();
  unrefStream(child.stdin);
  watcher = { folder, tell: (line) => void child.stdin.write(`${line}\n`) };
  return watcher;
}

/** @param {import("node:stream").Stream | null} stream a pipe to a child, which shall not keep this process running */
function unrefStream(stream) {
  /** @type {import("node:net").Socket | null} */ (stream)?.unref();
}

let folders = 0;

/**
 * A new folder, removed at the latest when this process has ended.
 *
 * @param {string} name
 * @param {{ uid: number, gid: number } | undefined} [owner]
 */
export function temporaryFolder(name, owner) {
  const folder = join(watching().folder, `${name}-${++folders}`);
  mkdirSync(folder, { mode: 0o700 });
  if (owner !== undefined) chownSync(folder, owner.uid, owner.gid);
  return folder;
}

/** @param {string} folder */
export function removeFolder(folder) {
  // A killed server's children may write for a moment longer.
  return rm(folder, { recursive: true, force: true, maxRetries: 10, retryDelay: 20 });
}

/**
 * Resolves when `condition` holds.
 *
 * @param {() => boolean | Promise<boolean>} condition
 * @param {{ what: string, limitMs?: number | undefined }} options
 * @throws {Error} when it does not within the time
 */
export async function until(condition, { what, limitMs = READY_MS }) {
  const deadlineMs = performance.now() + limitMs;
  while (!(await condition())) {
    if (performance.now() > deadlineMs) throw new Error(`${what}: not within ${limitMs} ms`);
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  }
}

/**
 * Whether a process runs. One that is dead, but whose parent has not asked for its exit code yet, still has its id, and
 * takes signals: orphans are left so for a second where process 1 is in no hurry. Linux tells.
 *
 * @param {number} pid
 */
export function isAlive(pid) {
  try {
    process.kill(pid, 0);
  } catch (error) {
    return /** @type {NodeJS.ErrnoException} */ (error).code === "EPERM";
  }
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
    return !/^[ZX]/.test(stat.slice(stat.lastIndexOf(")") + 2)); // after its name, which may contain anything
  } catch {
    return process.platform !== "linux"; // on Linux it has gone meanwhile
  }
}

/**
 * Runs a program to its end.
 *
 * @param {string[]} command
 * @param {{ user?: { uid: number, gid: number } | undefined, env?: NodeJS.ProcessEnv, input?: string }} [options]
 * @returns {Promise<string>} what it printed on stdout
 * @throws {Error} with what it printed on stderr, if it failed
 */
export async function run(command, { user, env, input } = {}) {
  const [file = "", ...args] = command;
  const child = spawn(file, args, { ...user, env: env ?? process.env, cwd: "/", stdio: ["pipe", "pipe", "pipe"] });
  let out = "";
  let err = "";
  child.stdout.setEncoding("utf8").on("data", (chunk) => {
    out = (out + chunk).slice(-LOG_CHARS_MAX);
  });
  child.stderr.setEncoding("utf8").on("data", (chunk) => {
    err = (err + chunk).slice(-LOG_CHARS_MAX);
  });
  child.stdin.on("error", () => undefined); // it has ended without reading: its exit code tells
  child.stdin.end(input);
  const [code, signal] = await once(child, "close");
  if (code === 0) return out;
  throw new Error(`${file} failed (${code ?? signal}): ${(err || out).slice(-LOG_CHARS_IN_ERRORS).trim()}`);
}

/**
 * @typedef {object} ServerSpec
 * @property {string} name for messages
 * @property {string[]} command the program, not a shell's line
 * @property {string} folder its working directory
 * @property {(log: string) => boolean} ready whether this output means that it serves. The server's own words are more
 *   reliable than a connection that succeeds: that may be another server's, on a port that both have drawn.
 * @property {NodeJS.ProcessEnv | undefined} [env]
 * @property {{ uid: number, gid: number } | undefined} [user]
 * @property {boolean | undefined} [keepInputOpen] for a program that ends with its standard input
 * @property {NodeJS.Signals | undefined} [stopSignal] asks for an orderly end, after which it can be started again
 * @property {NodeJS.Signals | undefined} [endSignal] ends it for good, its files are not needed any more: the quickest
 *   one that leaves nothing behind outside of its folder
 */

/** One server, which can be killed and started again. It is in a process group of its own. */
export class ServerProcess {
  /** @type {ServerSpec} */
  #spec;
  /** @type {import("node:child_process").ChildProcess | undefined} */
  #child;
  /** @type {Promise<unknown>} */
  #exit = Promise.resolve();
  #log = "";

  /** @param {ServerSpec} spec */
  constructor(spec) {
    this.#spec = spec;
  }

  /**
   * Starts a server, and waits until it serves.
   *
   * @param {ServerSpec} spec
   */
  static async start(spec) {
    const server = new ServerProcess(spec);
    await server.start();
    return server;
  }

  /** The process id, also of one that has ended. */
  get pid() {
    return /** @type {number} */ (this.#child?.pid);
  }

  /** The last part of what it has printed since it was started. */
  get log() {
    return this.#log;
  }

  get running() {
    return this.#child !== undefined && this.#child.exitCode === null && this.#child.signalCode === null;
  }

  /** Starts it if it does not run, and waits until it serves. */
  async start() {
    if (this.running) return;
    const child = this.#spawn();
    const { name, ready } = this.#spec;
    try {
      await this.logged(ready);
    } catch (error) {
      await this.kill9();
      const log = this.#log.slice(-LOG_CHARS_IN_ERRORS).trim();
      throw new Error(`${name} did not start: ${/** @type {Error} */ (error).message}\n${log}`);
    }
    // A program that forgets stop() ends nevertheless, and the watcher then ends the server.
    child.unref();
    for (const stream of child.stdio) if (stream) unrefStream(stream);
  }

  #spawn() {
    const { command, folder, env, user, keepInputOpen, endSignal } = this.#spec;
    const { tell } = watching();
    const become = `read -r line || exit 125; exec "$@"${keepInputOpen ? "" : " </dev/null"}`;
    const child = spawn("sh", ["-c", become, "sh", ...command], {
      ...user,
      cwd: folder,
      env: env ?? process.env,
      detached: true,
      stdio: ["pipe", "pipe", "pipe"],
    });
    this.#child = child;
    this.#log = "";
    for (const stream of [child.stdout, child.stderr]) {
      stream.setEncoding("utf8").on("data", (chunk) => {
        this.#log += chunk;
        if (this.#log.length > 2 * LOG_CHARS_MAX) this.#log = this.#log.slice(-LOG_CHARS_MAX);
      });
    }
    child.stdin.on("error", () => undefined);
    const { pid } = child;
    this.#exit = new Promise((resolve, reject) => {
      child.once("error", reject); // no shell
      child.once("exit", () => {
        if (pid === undefined) return;
        signalGroup(pid, "SIGKILL"); // what it has left behind
        tell(`ended ${pid}`);
        resolve(undefined);
      });
    });
    this.#exit.catch(() => undefined); // told to those who wait for it
    if (pid !== undefined) tell(`started ${pid} ${(endSignal ?? "SIGKILL").slice("SIG".length)}`);
    child.stdin.write("become the server\n");
    if (!keepInputOpen) child.stdin.end();
    return child;
  }

  /**
   * Resolves when it has printed something.
   *
   * @param {(log: string) => boolean} condition
   */
  async logged(condition) {
    await Promise.race([
      until(() => condition(this.#log) || !this.running, { what: `${this.#spec.name}, expected output` }),
      this.#exit,
    ]);
    if (condition(this.#log)) return;
    await this.#exit;
    throw new Error(`it ended (${this.#child?.exitCode ?? this.#child?.signalCode})`);
  }

  /** @param {NodeJS.Signals} signal */
  signal(signal) {
    if (this.running) process.kill(this.pid, signal);
  }

  /** `kill -9`, if it runs; resolves when it is dead. */
  async kill9() {
    await this.#end("SIGKILL", END_GRACE_MS);
  }

  /** An orderly end, if it runs, and a new start. */
  async restart() {
    await this.#end(this.#spec.stopSignal ?? "SIGTERM", STOP_GRACE_MS);
    await this.start();
  }

  /** Ends it for good. */
  async end() {
    await this.#end(this.#spec.endSignal ?? "SIGKILL", END_GRACE_MS);
  }

  /**
   * @param {NodeJS.Signals} signal
   * @param {number} graceMs after which SIGKILL follows
   */
  async #end(signal, graceMs) {
    if (!this.running) return;
    const child = this.#child;
    child?.ref();
    signalGroup(this.pid, signal);
    signalGroup(this.pid, "SIGCONT"); // one that is stopped takes no other signal
    const timer = setTimeout(() => signalGroup(this.pid, "SIGKILL"), graceMs);
    await this.#exit;
    clearTimeout(timer);
  }
}

/**
 * @param {number} pid its leader
 * @param {NodeJS.Signals} signal
 */
function signalGroup(pid, signal) {
  try {
    process.kill(-pid, signal);
  } catch {
    // nobody is left in it
  }
}

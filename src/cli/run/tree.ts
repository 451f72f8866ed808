/**
 * The processes of a command: how they are found and signalled.
 *
 * A command in a process group of its own is signalled as a group, which reaches its members in one system call, also
 * those forked a moment ago. A command that stays in the terminal's group shares it with the supervisor and with its
 * neighbours in a pipeline; it is signalled by its process id.
 *
 * Descendants outside the group are found, on Linux, by a marker in their environment, which they inherit. What cleared
 * its environment, and on other systems whatever left the group, is not found.
 *
 * Process ids are reused. A group's id is not, as long as a member lives, and once the group has been seen empty it is
 * never signalled again. A single process is signalled only until its exit is known.
 *
 * Loads nothing but Node's own modules: the guardian has to start fast.
 */
import { readdirSync, readFileSync } from "node:fs";

/** The environment variable with the marker, or with several if such commands are nested. */
export const MARKER_VARIABLE = "LEASEHOLD_RUN";

export class ProcessTree {
  readonly #pid: number | undefined;
  readonly #ownGroup: boolean;
  readonly #marker: string;
  #coreGone = false;

  /** Without a pid only what carries the marker is known. */
  constructor(pid: number | undefined, ownGroup: boolean, marker: string) {
    this.#pid = pid;
    this.#ownGroup = ownGroup;
    this.#marker = marker;
    this.#coreGone = pid === undefined;
  }

  /** To be called by the parent when the command's first process has been waited for: its id may soon be another's. */
  leaderExited(): void {
    if (this.#ownGroup) this.coreAlive();
    else this.#coreGone = true;
  }

  /** To the group, or to the first process if it has no group of its own. */
  signal(signal: NodeJS.Signals): void {
    if (this.#coreGone || this.#pid === undefined) return;
    send(this.#ownGroup ? -this.#pid : this.#pid, signal);
  }

  /** To the descendants that `signal` does not reach. */
  signalStrays(signal: NodeJS.Signals): void {
    for (const pid of this.#strays()) send(pid, signal);
  }

  /** How many processes live; at least 1 if any does. */
  alive(): number {
    return (this.coreAlive() ? 1 : 0) + this.#strays().length;
  }

  /** Whether anything lives that `signal` reaches. */
  coreAlive(): boolean {
    const pid = this.#pid;
    if (this.#coreGone || pid === undefined) return false;
    const alive = this.#ownGroup
      ? exists(-pid) && (!HAS_PROC || processes().some((p) => p.group === pid && p.alive))
      : exists(pid) && (!HAS_PROC || readProcess(pid)?.alive === true);
    if (!alive) this.#coreGone = true;
    return alive;
  }

  #strays(): number[] {
    if (!HAS_PROC) return [];
    return processes()
      .filter((p) => p.alive && p.pid !== process.pid && !this.#isCore(p) && carries(p.pid, this.#marker))
      .map((p) => p.pid);
  }

  #isCore(p: Process): boolean {
    if (this.#coreGone) return false;
    return this.#ownGroup ? p.group === this.#pid : p.pid === this.#pid;
  }
}

interface Process {
  readonly pid: number;
  readonly group: number;
  /** Not a zombie: those wait for nothing but their parent. */
  readonly alive: boolean;
}

const HAS_PROC = process.platform === "linux";

function processes(): Process[] {
  const found: Process[] = [];
  for (const entry of readdirSync("/proc")) {
    const p = /^\d+$/.test(entry) ? readProcess(Number(entry)) : undefined;
    if (p) found.push(p);
  }
  return found;
}

/** "pid (name) state parent group ...", where the name may contain anything. */
function readProcess(pid: number): Process | undefined {
  const text = readQuietly(`/proc/${pid}/stat`)?.toString("latin1");
  if (text === undefined) return undefined;
  const [state = "", , group = ""] = text.slice(text.lastIndexOf(")") + 2).split(" ");
  return { pid, group: Number(group), alive: !"ZX".includes(state) };
}

function carries(pid: number, marker: string): boolean {
  const environment = readQuietly(`/proc/${pid}/environ`);
  if (environment?.includes(marker) !== true) return false;
  const entries = environment.toString("latin1").split("\0");
  return entries.some((entry) => entry.startsWith(`${MARKER_VARIABLE}=`) && entry.includes(marker));
}

/** Undefined: the process is gone, or another user's. */
function readQuietly(path: string): Buffer | undefined {
  try {
    return readFileSync(path);
  } catch {
    return undefined;
  }
}

/** To a process, or to a group if negative. That it is gone or another user's is no error here: `alive` tells. */
function send(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal);
  } catch {}
}

function exists(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "EPERM";
  }
}

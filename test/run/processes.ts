/** Processes as the tests see them, from the outside. */
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";

export interface Seen {
  readonly pid: number;
  /** "T": stopped. */
  readonly state: string;
  readonly parent: number;
  readonly group: number;
  readonly session: number;
  readonly commandLine: string;
}

const read = (path: string): string | undefined => {
  try {
    return readFileSync(path, "latin1");
  } catch {
    return undefined;
  }
};

/** Where /proc/PID/stat has the size of the address space, counted from the state on. */
const MEMORY = 20;

/** Undefined: dead, whether or not anybody has waited for it, and whether or not the kernel has put everything away. */
export function seen(pid: number): Seen | undefined {
  const text = read(`/proc/${pid}/stat`);
  if (text === undefined) return undefined;
  const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
  const [state = "", parent, group, session] = fields;
  // Without memory it executes nothing any more: it was killed, and is on its way to be a zombie.
  if (state === "Z" || state === "X" || fields[MEMORY] === "0") return undefined;
  const commandLine = read(`/proc/${pid}/cmdline`) ?? "";
  return { pid, state, parent: Number(parent), group: Number(group), session: Number(session), commandLine };
}

export const alive = (pid: number): boolean => seen(pid) !== undefined;

export function childrenOf(pid: number): Seen[] {
  const all = readdirSync("/proc").filter((entry) => /^\d+$/.test(entry));
  return all.map((entry) => seen(Number(entry))).filter((p) => p?.parent === pid) as Seen[];
}

/** The guardian of a supervisor, if it has one by now. */
export const guardianOf = (supervisor: number): Seen | undefined =>
  childrenOf(supervisor).find((p) => p.commandLine.includes("guardian.js"));

/** What tree.mjs has written in its folder. */
export class TreeLog {
  constructor(readonly folder: string) {}

  #numbers(file: string): number[] {
    const path = join(this.folder, file);
    return existsSync(path) ? readFileSync(path, "utf8").split("\n").filter(Boolean).map(Number) : [];
  }

  get pids(): number[] {
    return this.#numbers("pids");
  }

  /** Who got SIGTERM and did not end by it. */
  get asked(): number[] {
    return this.#numbers("asked");
  }

  get lastBeatMs(): number {
    return Math.max(...this.#numbers("beats"));
  }

  get alive(): number[] {
    return this.pids.filter(alive);
  }
}

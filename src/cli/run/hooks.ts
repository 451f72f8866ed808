/**
 * The commands of `leasehold sidecar --elect`. The one that runs while leading is under a guardian, as the command of
 * `leasehold elect` is: it does not outlive the lead, even if this process is stopped or killed. The one that runs after
 * the lead has no lock above it; it is ended when it takes too long, since the next candidacy waits for it.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { randomUUID } from "node:crypto";
import type { Leadership } from "@leasehold/client";
import { InvalidArgumentError } from "commander";
import type { Logger } from "../../server/log.js";
import type { Hooks } from "../../sidecar/term/election.js";
import { planFor } from "./belief.js";
import type { Command } from "./channel.js";
import { type LockLike, type RunResult, Supervisor } from "./supervisor.js";
import { MARKER_VARIABLE } from "./tree.js";

export interface HookOptions {
  /** Of the election. */
  readonly name: string;
  readonly addr: string;
  /** Where the sidecar listens. */
  readonly address: () => string;
  readonly ttl: number;
  readonly killAfter: number;
  readonly onElected?: readonly string[];
  readonly onLost?: readonly string[];
  readonly log: Logger;
}

const WORDS_MAX = 1_000;
/** For the command after the lead. */
const LOST_MS_MAX = 30_000;

/** "/path/of/a/program", or a JSON array of it and its arguments. */
export function words(text: string): readonly string[] {
  if (!text.startsWith("[")) {
    if (text === "") throw new InvalidArgumentError("It names no program.");
    return [text];
  }
  const parsed = parseJson(text);
  if (Array.isArray(parsed) && parsed.length <= WORDS_MAX && parsed.every(isWord) && parsed[0]) return parsed;
  throw new InvalidArgumentError("It must be a JSON array of the program and its arguments.");
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

const isWord = (word: unknown): word is string => typeof word === "string" && !word.includes("\0");

export function hooksOf(options: HookOptions): Hooks {
  return {
    elected: (term, signal) => elected(options, term, signal),
    lost: (term) => lost(options, term),
  };
}

async function elected(options: HookOptions, term: Leadership, signal: AbortSignal): Promise<void> {
  const { onElected, ttl, killAfter, log } = options;
  const planned = planFor(ttl, killAfter);
  if (onElected === undefined || !planned.ok) return;
  const [file = "", ...args] = onElected;
  const marker = randomUUID();
  const env = { ...environment(options, term), [MARKER_VARIABLE]: marker };
  const command: Command = { file, args, env, ownGroup: true, marker };
  const result = await new Promise<RunResult>((resolve) => {
    new Supervisor(untilStopped(term, signal), command, planned.plan, resolve);
  });
  const told = { hook: "on-elected", token: term.grant.token, ...result };
  const failed = result.is === "not_started" || (result.is === "exited" && result.code !== 0);
  if (failed) log.error(told, "the command failed");
  else log.info(told, "the command ended");
}

/** The lead, which for its command is also over when the sidecar stops. */
function untilStopped(term: Leadership, signal: AbortSignal): LockLike {
  return {
    name: term.name,
    get state() {
      return signal.aborted ? { is: "lost" as const, reason: "closing" } : term.state;
    },
    on(_event: "lost", f: () => void) {
      signal.addEventListener("abort", f, { once: true });
      return { [Symbol.dispose]: () => signal.removeEventListener("abort", f) };
    },
  };
}

async function lost(options: HookOptions, term: Leadership): Promise<void> {
  const { onLost, killAfter, log } = options;
  if (onLost === undefined) return;
  const [file = "", ...args] = onLost;
  const env = {
    ...environment(options, term),
    LEASEHOLD_REASON: term.state.is === "lost" ? term.state.reason : "closing",
  };
  const child = spawn(file, args, { env, stdio: "inherit", detached: true });
  const told = { hook: "on-lost", token: term.grant.token };
  const end = await ended(child, killAfter);
  if (end === "0") log.info(told, "the command ended");
  else log.error({ ...told, end }, "the command failed");
}

/** Resolves with the exit code, the signal or the error, as text. What takes too long is ended, with its process group. */
function ended(child: ChildProcess, killAfterMs: number): Promise<string> {
  const kill = (signal: NodeJS.Signals) => {
    try {
      if (child.pid !== undefined) process.kill(-child.pid, signal);
    } catch {} // it is gone
  };
  return new Promise((resolve) => {
    const term = setTimeout(() => kill("SIGTERM"), LOST_MS_MAX);
    const force = setTimeout(() => kill("SIGKILL"), LOST_MS_MAX + killAfterMs);
    const done = (end: string) => {
      clearTimeout(term);
      clearTimeout(force);
      resolve(end);
    };
    child.once("error", (error: NodeJS.ErrnoException) => done(error.code ?? error.message));
    child.once("exit", (code, signal) => done(String(code ?? signal)));
  });
}

function environment({ name, addr, address }: HookOptions, term: Leadership): Record<string, string> {
  return {
    ...(process.env as Record<string, string>),
    LEASEHOLD_TOKEN: String(term.grant.token),
    LEASEHOLD_LOCK: name,
    LEASEHOLD_ADDR: addr,
    LEASEHOLD_SIDECAR: address(),
  };
}

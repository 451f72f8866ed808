/** `leasehold run` from the first connection to the exit code. */
import { randomUUID } from "node:crypto";
import { writeSync } from "node:fs";
import { constants } from "node:os";
import { type Client, connect, type ErrorCode, LeaseholdError, type Lock } from "@leasehold/client";
import { exitCode } from "../common.js";
import { duration } from "../output.js";
import type { Plan } from "./belief.js";
import { say } from "./say.js";
import { Signals } from "./signals.js";
import { type RunResult, Supervisor } from "./supervisor.js";
import { MARKER_VARIABLE } from "./tree.js";

export interface Job {
  readonly name: string;
  /** Empty: hold the lock until signalled. */
  readonly command: readonly string[];
  readonly addr: string;
  readonly ttlMs: number;
  /** Infinity: for ever. 0: try once. */
  readonly waitMs: number;
  readonly busyCode: number;
  readonly plan: Plan;
  /** The command stays in the process group of the terminal. */
  readonly foreground: boolean;
}

const SAY_THAT_IT_WAITS_AFTER_MS = 2_000;
/** What a server permits by default for one wait; a longer one is made of several. */
const WAIT_MS_MAX = 24 * 3_600_000;
/** For taking leave of a server that may be gone. */
const CLOSE_MS = 2_000;

const signalCode = (signal: NodeJS.Signals): number => 128 + (constants.signals[signal] ?? 0);

/** Returns the exit code. Never rejects. */
export async function runJob(job: Job): Promise<number> {
  const signals = new Signals();
  const cancel = new AbortController();
  signals.sendTo((signal) => cancel.abort(signal));
  let client: Client | undefined;
  try {
    // No server speaks TLS yet, and the other commands do without it too.
    client = await orAborted(connect(job.addr, { tls: false }), cancel.signal);
    client.on("warning", (warning) => say(warning.message));
    const lock = await takeLock(client, job, cancel.signal);
    const code = await (job.command.length === 0 ? hold(lock, signals) : command(lock, job, signals));
    exitOnSecond(signals, code);
    await lock.release();
    return code;
  } catch (error) {
    if (!signals.first || !cancel.signal.aborted) return explain(error, job);
    return signalCode(signals.first);
  } finally {
    await client?.close({ timeout: CLOSE_MS });
  }
}

/**
 * Who is impatient need not wait for a server that may be gone. The first signal does not count: the ^C that ended the
 * command may arrive here after the news of its end.
 */
function exitOnSecond(signals: Signals, code: number): void {
  signals.sendTo(() => signals.sendTo(() => process.exit(code)));
}

/** A promise that cannot be cancelled, left to itself when the signal says so. */
function orAborted<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    signal.addEventListener("abort", () => reject(signal.reason), { once: true });
    promise.then(resolve, reject);
  });
}

// ---------------------------------------------------------------------------------------------------- taking the lock

async function takeLock(client: Client, job: Job, signal: AbortSignal): Promise<Lock> {
  const { name, ttlMs } = job;
  const waiting =
    job.waitMs > 0 ? setTimeout(() => void sayThatItWaits(client, name), SAY_THAT_IT_WAITS_AFTER_MS) : undefined;
  try {
    let leftMs = job.waitMs;
    for (;;) {
      const wait = Math.min(leftMs, WAIT_MS_MAX);
      leftMs -= wait;
      try {
        return await client.acquire(name, { wait, ttl: ttlMs, signal });
      } catch (error) {
        if (leftMs === 0 || !LeaseholdError.is(error, "BUSY")) throw error;
      }
    }
  } finally {
    clearTimeout(waiting);
  }
}

async function sayThatItWaits(client: Client, name: string): Promise<void> {
  try {
    const { holders, waitersTotal } = await client.describe(name);
    const [holder] = holders;
    const held = holder ? `, held by ${holder.owner || "somebody"} for ${duration(holder.heldMs)}` : "";
    const others = waitersTotal > 1 ? `; ${waitersTotal} are waiting` : "";
    say(`waiting for ${name}${held}${others}`);
  } catch {
    say(`waiting for ${name}; the server does not answer`);
  }
}

const codeByError: Readonly<Partial<Record<ErrorCode, number>>> = {
  UNREACHABLE: exitCode.unreachable,
  STORE_DOWN: exitCode.unreachable,
  NOT_LEADER: exitCode.unreachable,
  OUTCOME_UNKNOWN: exitCode.unreachable,
  LOST: exitCode.unreachable,
  LIMIT: exitCode.busy,
  DENIED: exitCode.denied,
  INVALID: exitCode.usage,
};

/** Why there is no lock, and the exit code for that. */
function explain(error: unknown, job: Job): number {
  const failure = LeaseholdError.from(error);
  if (failure.code === "BUSY") {
    say(failure.message);
    return job.busyCode;
  }
  const code = codeByError[failure.code] ?? exitCode.internal;
  say(code === exitCode.internal ? `this is a bug: ${failure.stack ?? failure.message}` : failure.message);
  return code;
}

// ------------------------------------------------------------------------------------------------------ under the lock

/** Prints the token and holds the lock until a signal comes, which is its proper end. */
function hold(lock: Lock, signals: Signals): Promise<number> {
  return new Promise((resolve) => {
    const alive = setInterval(() => void lock.state, 1_000); // also keeps the process from ending
    const end = (code: number) => {
      clearInterval(alive);
      resolve(code);
    };
    lock.on("lost", (reason) => {
      say(`lost ${lock.name}: ${lostText(reason)}`);
      end(exitCode.lost);
    });
    signals.sendTo(() => end(exitCode.ok));
    try {
      writeSync(1, `${lock.token}\n`);
    } catch (error) {
      say(`cannot print the token: ${(error as Error).message}`);
      end(exitCode.internal);
    }
  });
}

async function command(lock: Lock, job: Job, signals: Signals): Promise<number> {
  const result = await new Promise<RunResult>((resolve) => {
    const supervisor = new Supervisor(lock, commandOf(job, lock.token), job.plan, resolve);
    signals.sendTo((signal) => supervisor.forward(signal));
    if (!job.foreground) signals.suspendWith((signal, sent) => supervisor.forward(signal, sent));
  });
  return report(result, lock, job);
}

function commandOf(job: Job, token: number) {
  const [file = "", ...args] = job.command;
  const marker = randomUUID();
  // A command run under several locks belongs to all of them.
  const markers = [...(process.env[MARKER_VARIABLE] ?? "").split(",").filter(Boolean).slice(-15), marker].join(",");
  const env = {
    ...(process.env as Record<string, string>),
    LEASEHOLD_TOKEN: String(token),
    LEASEHOLD_LOCK: job.name,
    LEASEHOLD_ADDR: job.addr,
    [MARKER_VARIABLE]: markers,
  };
  return { file, args, env, ownGroup: !job.foreground, marker };
}

/** Says what there is to say, and returns the exit code. */
function report(result: RunResult, lock: Lock, job: Job): number {
  switch (result.is) {
    case "exited":
      return result.code;
    case "signalled":
      return signalCode(result.signal);
    case "not_started": {
      const notFound = result.code === "ENOENT" || result.code === "ERR_INVALID_ARG_VALUE";
      say(`${job.command[0]}: ${notFound ? "not found" : `cannot be executed (${result.code})`}`);
      return notFound ? 127 : 126;
    }
    case "ended": {
      const survivors = result.survivors > 0 ? "; SOME OF ITS PROCESSES COULD NOT BE KILLED" : "";
      say(`${whyEnded(result.cause, lock)}: the command was ended${survivors}`);
      return exitCode.lost;
    }
  }
}

function whyEnded(cause: "lost" | "deadline" | "no_guardian", lock: Lock): string {
  if (cause === "no_guardian") return "the guardian process is gone or does not answer";
  const { state } = lock;
  return `lost ${lock.name}: ${state.is === "lost" ? lostText(state.reason) : "it could not be renewed in time"}`;
}

const LOST_TEXT: Readonly<Record<string, string>> = {
  expired: "it was not renewed in time",
  revoked: "its lease was revoked",
  session_replaced: "another process took over the session",
  unknown_to_server: "the server does not know it any more",
};

const lostText = (reason: string): string => LOST_TEXT[reason] ?? reason;

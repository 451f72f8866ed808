/** What `leasehold run` and `leasehold elect` have to do: hold a lock and run a command under it. */
import { randomUUID } from "node:crypto";
import { constants } from "node:os";
import type { AcquireOptions, ConnectOptions, Lock } from "@leasehold/client";
import { exitCode } from "../common.js";
import type { Plan } from "./belief.js";
import type { Command } from "./channel.js";
import type { Say } from "./say.js";
import type { Signals } from "./signals.js";
import { type EndCause, type RunResult, Supervisor } from "./supervisor.js";
import { MARKER_VARIABLE } from "./tree.js";

export interface Task {
  readonly name: string;
  /** Empty, for `run`: hold the lock until signalled. */
  readonly command: readonly string[];
  readonly addr: string;
  readonly credentials: Pick<ConnectOptions, "tls" | "token">;
  /** How the lock is asked for. */
  readonly request: Pick<AcquireOptions, "ttl" | "mode" | "permits" | "maxHold" | "lockDelay" | "metadata">;
  readonly plan: Plan;
  /** The command stays in the process group of the terminal. */
  readonly foreground: boolean;
  readonly say: Say;
}

export const signalCode = (signal: NodeJS.Signals): number => 128 + (constants.signals[signal] ?? 0);

/** Runs the command of the task until it, or the lock, has ended; signals go to it meanwhile. */
export function runCommand(lock: Lock, task: Task, signals: Signals): Promise<RunResult> {
  return new Promise((resolve) => {
    const supervisor = new Supervisor(lock, commandOf(task, lock), task.plan, resolve);
    signals.sendTo((signal) => supervisor.forward(signal));
    if (!task.foreground) signals.suspendWith((signal, sent) => supervisor.forward(signal, sent));
  });
}

function commandOf(task: Task, lock: Lock): Command {
  const [file = "", ...args] = task.command;
  const marker = randomUUID();
  // A command run under several locks belongs to all of them.
  const markers = [...(process.env[MARKER_VARIABLE] ?? "").split(",").filter(Boolean).slice(-15), marker].join(",");
  const { LEASEHOLD_SLOT: _outer, ...inherited } = process.env as Record<string, string>;
  const { token, slots } = lock.grant;
  const env = {
    ...inherited,
    LEASEHOLD_TOKEN: String(token),
    LEASEHOLD_LOCK: task.name,
    LEASEHOLD_ADDR: task.addr,
    ...(slots.length > 0 ? { LEASEHOLD_SLOT: slots.join(",") } : {}),
    [MARKER_VARIABLE]: markers,
  };
  return { file, args, env, ownGroup: !task.foreground, marker };
}

/** How it ended, as an exit code. Says what there is to say. */
export function report(result: RunResult, lock: Lock, task: Task): number {
  switch (result.is) {
    case "exited":
      return result.code;
    case "signalled":
      return signalCode(result.signal);
    case "not_started": {
      const notFound = result.code === "ENOENT" || result.code === "ERR_INVALID_ARG_VALUE";
      task.say(`${task.command[0]}: ${notFound ? "not found" : `cannot be executed (${result.code})`}`);
      return notFound ? 127 : 126;
    }
    case "ended": {
      const survivors = survivorsOf(result) > 0 ? "; SOME OF ITS PROCESSES COULD NOT BE KILLED" : "";
      task.say(`${whyEnded(result.cause, lock, task)}: the command was ended${survivors}`);
      return exitCode.lost;
    }
  }
}

/** How many processes of the command could not be killed. */
export const survivorsOf = (result: RunResult): number => (result.is === "ended" ? result.survivors : 0);

function whyEnded(cause: EndCause, lock: Lock, task: Task): string {
  if (cause === "no_guardian") return "the guardian process is gone or does not answer";
  const { state } = lock;
  if (state.is === "lost") return `lost ${lock.name}: ${lostText(state.reason)}`;
  // Its end was near although renewals went well.
  const maxHold = task.request.maxHold !== undefined && state.is === "held";
  return `lost ${lock.name}: ${maxHold ? LOST_TEXT.max_hold : "it could not be renewed in time"}`;
}

const LOST_TEXT = {
  expired: "it was not renewed in time",
  forced: "an administrator took it away",
  max_hold: "its maximum hold is over",
  revoked: "its lease was revoked",
  session_replaced: "another process took over the session",
  transferred: "it was handed on",
  unknown_to_server: "the server does not know it any more",
} as const;

export const lostText = (reason: string): string =>
  Object.hasOwn(LOST_TEXT, reason) ? LOST_TEXT[reason as keyof typeof LOST_TEXT] : reason;

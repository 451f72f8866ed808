/** `leasehold run` from the first connection to the exit code. */
import { writeSync } from "node:fs";
import { type Client, LeaseholdError, type Lock } from "@leasehold/client";
import { exitCode } from "../common.js";
import { exitCodeFor } from "../sdk-errors.js";
import { Signals } from "./signals.js";
import { connectFor, takeLock } from "./taking.js";
import { lostText, report, runCommand, signalCode, survivorsOf, type Task } from "./task.js";

export interface Job extends Task {
  /** Infinity: for ever. 0: try once. */
  readonly waitMs: number;
  readonly busyCode: number;
}

/** For taking leave of a server that may be gone. */
export const CLOSE_MS = 2_000;

/** Returns the exit code. Never rejects. */
export async function runJob(job: Job): Promise<number> {
  const signals = new Signals();
  const cancel = new AbortController();
  signals.sendTo((signal) => cancel.abort(signal));
  let client: Client | undefined;
  try {
    client = await connectFor(job, cancel.signal);
    const lock = await takeLock(client, job, job.waitMs, cancel.signal);
    const { code, survivors } = await (job.command.length === 0
      ? hold(lock, job, signals)
      : command(lock, job, signals));
    if (survivors > 0) {
      client = undefined; // what could not be killed keeps the lock until the lease runs out
      return code;
    }
    exitOnSecond(signals, code);
    // Also after a loss: an administrator's forced release waits for it, and may go on now that the command has ended.
    await lock.release();
    return code;
  } catch (error) {
    if (!signals.first || !cancel.signal.aborted) return explain(error, job, job.busyCode);
    return signalCode(signals.first);
  } finally {
    await client?.close({ timeout: CLOSE_MS });
  }
}

/**
 * Who is impatient need not wait for a server that may be gone. The first signal does not count: the ^C that ended the
 * command may arrive here after the news of its end.
 */
export function exitOnSecond(signals: Signals, code: number): void {
  signals.sendTo(() => signals.sendTo(() => process.exit(code)));
}

interface Held {
  readonly code: number;
  /** How many processes of the command could not be killed. */
  readonly survivors: number;
}

async function command(lock: Lock, job: Job, signals: Signals): Promise<Held> {
  const result = await runCommand(lock, job, signals);
  return { code: report(result, lock, job), survivors: survivorsOf(result) };
}

/** Prints the token and holds the lock until a signal comes, which is its proper end. */
function hold(lock: Lock, { say }: Job, signals: Signals): Promise<Held> {
  return new Promise((resolve) => {
    const alive = setInterval(() => void lock.state, 1_000); // also keeps the process from ending
    const end = (code: number) => {
      clearInterval(alive);
      resolve({ code, survivors: 0 });
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

/** Why there is no lock, and the exit code for that. */
export function explain(error: unknown, { say }: Task, busyCode: number): number {
  const failure = LeaseholdError.from(error);
  if (failure.code === "BUSY") {
    say(failure.message);
    return busyCode;
  }
  const code = exitCodeFor(failure);
  say(code === exitCode.internal ? `this is a bug: ${failure.stack ?? failure.message}` : failure.message);
  return code;
}

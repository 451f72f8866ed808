/**
 * `leasehold elect`: lead, run a command while leading, and stand again after a loss.
 *
 * A leadership is a lock whose metadata is its value. Whoever waits for it stands in the election. What ends a term is a
 * real loss only: a server that restarts or is out of reach for a while costs nobody the lead, as long as the lease lives.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { type Client, type ErrorCode, LeaseholdError, type Lock } from "@leasehold/client";
import { exitCode } from "../common.js";
import { CLOSE_MS, exitOnSecond, explain } from "./job.js";
import { Signals } from "./signals.js";
import { connectFor, takeLock } from "./taking.js";
import { report, runCommand, signalCode, survivorsOf, type Task } from "./task.js";

/** Between a term that was lost, or a failure to stand, and the next try. */
const PAUSE_MS = 1_000;
/** Failures that pass. */
const PASSING: ReadonlySet<ErrorCode> = new Set([
  ...(["UNREACHABLE", "STORE_DOWN", "NOT_LEADER", "OUTCOME_UNKNOWN", "LOST", "LIMIT"] as const),
]);

/** Returns the exit code: the command's when it has ended by itself. Never rejects. */
export async function runElection(task: Task): Promise<number> {
  const signals = new Signals();
  const cancel = new AbortController();
  const onSignal = (signal: NodeJS.Signals) => cancel.abort(signal);
  signals.sendTo(onSignal);
  let client: Client | undefined;
  try {
    client = await connectFor(task, cancel.signal);
    for (;;) {
      const lock = await campaign(client, task, cancel.signal);
      task.say(`leading ${task.name}, token ${lock.grant.token}`);
      const result = await runCommand(lock, task, signals);
      const code = report(result, lock, task);
      if (survivorsOf(result) > 0) {
        client = undefined; // what could not be killed keeps the lead until the lease runs out
        return code;
      }
      exitOnSecond(signals, code);
      // Also after a loss: an administrator's forced release waits for it, and may go on now that the command has ended.
      await lock.release();
      if (result.is !== "ended") return code;
      // Who was asked to end while the command was running, or being ended, does not stand again.
      if (signals.ending) return signalCode(signals.ending);
      signals.sendTo(onSignal);
      await sleep(PAUSE_MS, undefined, { signal: cancel.signal });
    }
  } catch (error) {
    if (!signals.first || !cancel.signal.aborted) return explain(error, task, exitCode.busy);
    return signalCode(signals.first);
  } finally {
    await client?.close({ timeout: CLOSE_MS });
  }
}

/** Stands until elected. What passes is waited for. */
async function campaign(client: Client, task: Task, signal: AbortSignal): Promise<Lock> {
  let said = "";
  for (;;) {
    try {
      return await takeLock(client, task, Number.POSITIVE_INFINITY, signal);
    } catch (error) {
      if (!LeaseholdError.is(error) || !PASSING.has(error.code)) throw error;
      if (error.message !== said) task.say(`${error.message}; trying again`);
      said = error.message;
      await sleep(PAUSE_MS, undefined, { signal });
    }
  }
}

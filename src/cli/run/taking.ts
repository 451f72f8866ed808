/** Connecting, and waiting for the lock: in turns, aloud when it takes long, and until a signal says otherwise. */
import { type Client, connect, LeaseholdError, type Lock } from "@leasehold/client";
import { duration } from "../output.js";
import type { Task } from "./task.js";

const SAY_THAT_IT_WAITS_AFTER_MS = 2_000;
/** What a server permits by default for one wait; a longer one is made of several. */
const WAIT_MS_MAX = 24 * 3_600_000;

/** Rejects UNREACHABLE, and with the reason of the signal. */
export async function connectFor(task: Task, signal: AbortSignal): Promise<Client> {
  const client = await orAborted(connect(task.addr, task.credentials), signal);
  client.on("warning", (warning) => task.say(warning.message));
  return client;
}

/** A promise that cannot be cancelled, left to itself when the signal says so. */
function orAborted<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    signal.addEventListener("abort", () => reject(signal.reason), { once: true });
    promise.then(resolve, reject);
  });
}

/** `waitMs`: Infinity for ever, 0 tries once. Rejects as `client.acquire` does. */
export async function takeLock(client: Client, task: Task, waitMs: number, signal: AbortSignal): Promise<Lock> {
  const { name, request } = task;
  const waiting =
    waitMs > 0 ? setTimeout(() => void sayThatItWaits(client, task), SAY_THAT_IT_WAITS_AFTER_MS) : undefined;
  try {
    let leftMs = waitMs;
    for (;;) {
      const wait = Math.min(leftMs, WAIT_MS_MAX);
      leftMs -= wait;
      try {
        return await client.acquire(name, { ...request, wait, signal });
      } catch (error) {
        if (leftMs === 0 || !LeaseholdError.is(error, "BUSY")) throw error;
      }
    }
  } finally {
    clearTimeout(waiting);
  }
}

async function sayThatItWaits(client: Client, { name, say }: Task): Promise<void> {
  try {
    const { holders, waitersTotal, delayRemainingMs } = await client.describe(name);
    const [holder] = holders;
    const delayed = delayRemainingMs > 0 ? `, whose lock delay runs for another ${duration(delayRemainingMs)}` : "";
    const held = holder ? `, held by ${holder.owner || "somebody"} for ${duration(holder.heldMs)}` : delayed;
    const others = waitersTotal > 1 ? `; ${waitersTotal} are waiting` : "";
    say(`waiting for ${name}${held}${others}`);
  } catch (error) {
    // Who may acquire need not be permitted to see who holds.
    say(`waiting for ${name}${LeaseholdError.is(error, "DENIED") ? "" : "; the server does not answer"}`);
  }
}

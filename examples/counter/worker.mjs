/**
 * One of the processes that increment the counter. This is the file to read: it does what a program of yours would do.
 *
 * Started by counter.mjs with a job in its first argument; tells its parent what happens in messages.
 */
import { createHash } from "node:crypto";
import { setTimeout as delay } from "node:timers/promises";
import { connect, LeaseholdError } from "@leasehold/client";
import { openDatabase } from "./database.mjs";

const job = JSON.parse(process.argv[2]);
const database = openDatabase(job.database);
const report = (message) => process.send(message);

/** What lies between the read and the write in a real program: computing the new state. */
function think(value) {
  let digest = String(value);
  for (let i = 0; i < job.thinkRounds; i++) digest = createHash("sha256").update(digest).digest("hex");
  return value + 1;
}

// ---------------------------------------------------------------------------------------------- without a lock

function incrementUnprotected() {
  const value = database.read();
  database.write(job.worker, think(value));
}

// ---------------------------------------------------------------------------------------------- with Leasehold

/** Read, modify, write, under the lock. */
async function incrementUnder(lock) {
  // `lock.token` throws as soon as the lock is lost, so a program that asks for it right before its write is told of most
  // pauses. But it can be paused after that, too, on the way to the write. That is the case that needs the fence, and to
  // have it in every run the token is read here, once, and the pause comes between here and the write.
  const { token } = lock;
  const value = database.read();
  const next = think(value);
  await interruption(token);
  if (job.fence) database.writeFenced(job.worker, next, token);
  else database.writeUnfenced(job.worker, next, token);
}

/** @returns whether the increment is in the database */
async function increment(client) {
  let committed = false;
  try {
    await client.withLock("counter", { wait: "30s", fence: database.fence }, async (lock) => {
      await incrementUnder(lock);
      committed = true;
    });
  } catch (error) {
    // When the lock was lost, `withLock` rejects with LOST, and what the callback threw is its cause.
    const thrown = LeaseholdError.is(error, "LOST") && error.cause ? error.cause : error;
    if (LeaseholdError.is(thrown, "STALE_TOKEN")) report({ refused: thrown.token });
    // The lock may also be lost after the commit. Then the increment counts: the fence has let it through.
    else if (!LeaseholdError.is(thrown) || !(thrown.retryable || thrown.code === "OUTCOME_UNKNOWN")) throw error;
    if (!committed) await delay(10);
  }
  return committed;
}

// ---------------------------------------------------------------------------------------------- for the script

// The script asks a worker to stay where it is in the middle of its next increment, so that it can pause it, kill it or
// kill the server at that very point.
let interrupt = false;
let goOn = () => {};
let finished = false;
process.on("message", (message) => {
  if (message === "interrupt") interrupt = true;
  if (message === "do not interrupt") interrupt = false;
  if (message === "go on") goOn();
});
process.on("disconnect", () => process.exit(finished ? 0 : 1));

/** Tells the script, and waits until it says "go on". */
function stopAt(message) {
  return new Promise((resolve) => {
    goOn = resolve;
    report(message);
  });
}

async function interruption(token) {
  if (!interrupt) return;
  interrupt = false;
  await stopAt({ interrupted: token });
}

// ---------------------------------------------------------------------------------------------- all increments

// All start together, or on a fast machine the first is through before the second has begun.
await stopAt({ ready: true });
if (job.address) {
  const client = await connect(job.address, { ttl: job.ttl });
  for (let done = 0; done < job.increments; ) if (await increment(client)) done++;
  await client.close();
} else {
  for (let done = 0; done < job.increments; done++) incrementUnprotected();
}
database.close();
finished = true;
process.send({ finished }, () => process.disconnect());

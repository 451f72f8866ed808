// A client that does what it is told on stdin, one command a line, and answers each with a line of JSON. It runs under
// a wall clock of the test's making.
import { open, rm } from "node:fs/promises";
import { createInterface } from "node:readline";
import { connect } from "@leasehold/client";

const [address, owner, ttl] = process.argv.slice(2);
const client = await connect(address, { owner, ttl });
const locks = [];
const lost = [];

async function take(name) {
  const lock = await client.acquire(name, { wait: "60s" });
  lock.on("lost", (reason) => lost.push(`${name}: ${reason}`));
  locks.push(lock);
  return { token: lock.token };
}

/** Takes a lock again and again. A file that must not be there while the lock is held shows whether anybody else does. */
async function contend(name, times, file) {
  const tokens = [];
  for (let i = 0; i < Number(times); i++) {
    await client.withLock(name, { wait: "60s" }, async (lock) => {
      const handle = await open(file, "wx");
      await new Promise((resolve) => setImmediate(resolve));
      lock.assertHeld();
      await handle.close();
      await rm(file);
      tokens.push(lock.token);
    });
  }
  return { tokens };
}

const look = async () => ({ wallMs: Date.now(), lost, held: locks.map((lock) => lock.state.is) });

const commands = { take, contend, look };
createInterface({ input: process.stdin }).on("line", async (line) => {
  const [command, ...args] = line.split(" ");
  const answer = await commands[command](...args).catch((error) => ({ error: String(error) }));
  process.stdout.write(`${JSON.stringify(answer)}\n`);
});
process.stdout.write(`${JSON.stringify({ connected: true })}\n`);

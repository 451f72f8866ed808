/**
 * Issuing an invoice: read the last number, render the document, write the next number. Under three locks.
 *
 * This is the file to read: each function does what a program of yours would do.
 */
import { randomUUID } from "node:crypto";
import { setTimeout as delay } from "node:timers/promises";

const KEY = "lock:invoices";
const TTL_MS = 1_000;

export const lastNumber = (db) => db.prepare("select coalesce(max(number), 0) from invoices").pluck().get();
const write = (db, number, worker) =>
  db.prepare("insert into invoices (number, worker) values (?, ?)").run(number, worker);

async function issue({ db, worker, render }) {
  const number = lastNumber(db) + 1;
  await render(number);
  write(db, number, worker);
}

/** Tries until it has the lock; false when the patience is over. */
async function taken(take, patienceMs) {
  const giveUpAt = performance.now() + patienceMs;
  while (!(await take())) {
    if (performance.now() > giveUpAt) return false;
    await delay(20);
  }
  return true;
}

/** No time limit: whoever is killed holds it for ever. */
export async function underSetNx({ redis, patienceMs, ...rest }) {
  if (!(await taken(() => redis.set(KEY, rest.worker, "NX"), patienceMs))) return false;
  await issue(rest);
  await redis.del(KEY);
  return true;
}

/**
 * A time limit, and the lock is deleted only by who owns it: as good as it gets without a fence. Whoever stands still for
 * longer than the limit has a successor, and writes all the same.
 */
export async function underSetNxPx({ redis, patienceMs, ...rest }) {
  const mine = randomUUID();
  if (!(await taken(() => redis.set(KEY, mine, "PX", TTL_MS, "NX"), patienceMs))) return false;
  await issue(rest);
  await redis.eval("if redis.call('get', KEYS[1]) == ARGV[1] then redis.call('del', KEYS[1]) end", 1, KEY, mine);
  return true;
}

/** A lease, whose token the database checks in the transaction of the write. */
export function underLeasehold({ client, fence, db, worker, render }) {
  return client.withLock("invoices", { wait: "60s", fence }, async (lock) => {
    const number = lastNumber(db) + 1; // the floor is raised already: nobody older can write any more
    // `fence.tx(lock, …)` looks at the lock before it begins, and so notices most pauses by itself. Here the token is taken
    // beforehand, so that the pause comes after the last look: the case that only the database can catch.
    const claim = { name: lock.name, token: lock.token };
    await render(number);
    fence.tx(claim, () => write(db, number, worker));
    return true;
  });
}

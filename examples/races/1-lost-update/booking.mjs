/**
 * Booking a seat, in four ways. This is the file to read: each function does what a program of yours would do.
 *
 * A booking is a read, something that takes time (a payment), and a write that depends on what was read.
 */
import { retryOnConflict, updateVersioned } from "@leasehold/fence/postgres";

const READ = "select seats_left, version from shows where id = 7";
const WRITE = "update shows set seats_left = $1 where id = 7";
const RECORD = "insert into bookings (seat, worker) values ($1, $2)";

/** Nothing guards it: two processes read the same number and sell the same seat. */
export async function bookUnprotected({ pool, worker, pay }) {
  const { rows } = await pool.query(READ);
  const seat = rows[0].seats_left;
  if (seat === 0) return false;
  await pay(seat);
  await pool.query(WRITE, [seat - 1]);
  await pool.query(RECORD, [seat, worker]);
  return true;
}

/** The lock alone: right, until a holder stands still between `pay` and the write for longer than its lease. */
export function bookLocked({ pool, client, worker, pay }) {
  return client.withLock("shows/7", { wait: "60s" }, () => bookUnprotected({ pool, worker, pay }));
}

/** The lock, and a fence: the database itself refuses the write of a holder that has been overtaken. */
export function bookFenced({ pool, client, fence, worker, pay }) {
  return client.withLock("shows/7", { wait: "60s", fence }, async (lock) => {
    const { rows } = await pool.query(READ); // the floor is raised already: nobody older can change it any more
    const seat = rows[0].seats_left;
    if (seat === 0) return false;
    // `fence.tx(lock, …)` would notice most pauses by itself, since it looks at the lock before it sends anything. Here the
    // token is taken beforehand, so that the pause comes after the last look: the case that only the database can catch.
    const claim = { name: lock.name, token: lock.token };
    await pay(seat);
    await fence.tx(claim, async (tx) => {
      await tx.query(WRITE, [seat - 1]);
      await tx.query(RECORD, [seat, worker]);
    });
    return true;
  });
}

/** Without a lock: the write takes effect only if the row is still what was read; else all over again. */
export function bookOptimistically({ pool, worker, pay }) {
  const once = async () => {
    const { rows } = await pool.query(READ);
    const { seats_left: seat, version } = rows[0];
    if (seat === 0) return false;
    await pay(seat);
    const tx = await pool.connect();
    try {
      await tx.query("begin");
      await updateVersioned(tx, { table: "shows", where: { id: 7 }, set: { seats_left: seat - 1 }, version });
      await tx.query(RECORD, [seat, worker]);
      await tx.query("commit");
    } catch (error) {
      await tx.query("rollback");
      throw error;
    } finally {
      tx.release();
    }
    return true;
  };
  return retryOnConflict(once, { attempts: 200, delayMsMax: 50 });
}

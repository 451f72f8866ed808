/**
 * The counter, in SQLite, and the fence that guards it: `sqliteFence` of @leasehold/fence.
 *
 * A lock alone cannot protect a database: a process may stall between the moment at which it makes sure that it holds
 * the lock and the moment at which its write arrives, for longer than its lease lasts. Meanwhile the next one is
 * granted the lock, and now two write. So the database checks as well. Every grant of a lock comes with a token, and
 * tokens only grow. The fence keeps, in a table of its own, the highest token that has been used for a resource, its floor,
 * and whoever comes with a lower one is refused, in the transaction of the write.
 *
 * The floor is raised as the FIRST step under a new grant (the option `fence` of `withLock`), before the value is read, and
 * not only when it is written:
 *
 *     holder 1 reads 41 and stalls; its lease ends
 *     holder 2 is granted the lock, reads 41
 *     holder 1 wakes and writes 42            <- the floor is still 1 if holder 2 raises it only with its write
 *     holder 2 writes 42                      <- one of the two increments is lost
 *
 * With the floor raised before the read, holder 1 is refused from then on, and what it wrote before is read.
 */
import { sqliteFence } from "@leasehold/fence/sqlite";
import Database from "better-sqlite3";

const RESOURCE = "counter";

const SCHEMA = `
  create table counter (value integer not null);
  insert into counter values (0);

  -- Every committed increment, written in the transaction that increments: what a worker says it did may get lost with
  -- the worker, this cannot. Token and floor are those at the write; without a lock they are null.
  create table increments (id integer primary key, worker text not null, value integer not null, token integer, floor integer);
`;

/** @param {string} path of a file that does not exist yet */
export function createDatabase(path) {
  const db = new Database(path);
  db.pragma("journal_mode = wal");
  db.exec(SCHEMA);
  sqliteFence(db).migrate();
  db.close();
}

/** @param {string} path */
export function openDatabase(path) {
  const db = new Database(path, { timeout: 10_000 });

  const readValue = db.prepare("select value from counter").pluck();
  const readFloor = db.prepare("select token from leasehold_fence where resource = ?").pluck();
  const update = db.prepare("update counter set value = ?");
  const record = db.prepare("insert into increments (worker, value, token, floor) values (?, ?, ?, ?)");
  const fence = sqliteFence(db);

  const write = db.transaction((worker, value) => {
    update.run(value);
    record.run(worker, value, null, null);
  });
  const writeWith = (worker, value, token) => {
    update.run(value);
    record.run(worker, value, token, readFloor.get(RESOURCE));
  };
  /** Only for the demonstration of what happens without a fence. */
  const writeUnfenced = db.transaction(writeWith);

  return {
    /** @returns {number} */
    read: () => readValue.get(),

    /** Writes whatever anybody else does. */
    write: (/** @type {string} */ worker, /** @type {number} */ value) => write.immediate(worker, value),

    /** What refuses stale tokens. */
    fence,

    /** Writes, unless a higher token has been used. Throws STALE_TOKEN. */
    writeFenced: (/** @type {string} */ worker, /** @type {number} */ value, /** @type {number} */ token) =>
      fence.tx({ name: RESOURCE, token }, () => writeWith(worker, value, token)),

    writeUnfenced: (/** @type {string} */ worker, /** @type {number} */ value, /** @type {number} */ token) =>
      writeUnfenced.immediate(worker, value, token),

    /** The highest token that was used. @returns {number} */
    floor: () => readFloor.get(RESOURCE) ?? 0,

    /** How many increments were committed, by one worker or by all. @returns {number} */
    committed: (worker = null) =>
      db.prepare("select count(*) from increments where ? is null or worker = ?").pluck().get(worker, worker),

    /** Committed increments whose token was below the floor, or not above that of the increment before. @returns {number} */
    staleWrites: () =>
      db
        .prepare(
          `select count(*) from (select token, floor, lag(token) over (order by id) as before from increments)
           where token < floor or token <= before`,
        )
        .pluck()
        .get(),

    close: () => db.close(),
  };
}

/**
 * The counter, in SQLite, and the fence that guards it.
 *
 * A lock alone cannot protect a database: a process may stall between the moment at which it makes sure that it holds
 * the lock and the moment at which its write arrives, for longer than its lease lasts. Meanwhile the next one is
 * granted the lock, and now two write. So the database checks as well. Every grant of a lock comes with a token, and
 * tokens only grow. The table `fence` keeps the highest token that has been used for a resource, its floor, and whoever
 * comes with a lower one is refused.
 *
 * The floor is raised as the FIRST step under a new grant, before the value is read, and not only when it is written:
 *
 *     holder 1 reads 41 and stalls; its lease ends
 *     holder 2 is granted the lock, reads 41
 *     holder 1 wakes and writes 42            <- the floor is still 1 if holder 2 raises it only with its write
 *     holder 2 writes 42                      <- one of the two increments is lost
 *
 * With the floor raised before the read, holder 1 is refused from then on, and what it wrote before is read.
 */
import Database from "better-sqlite3";

const RESOURCE = "counter";

const SCHEMA = `
  create table counter (value integer not null);
  insert into counter values (0);

  create table fence (resource text primary key, token integer not null);

  -- Every committed increment, written in the transaction that increments: what a worker says it did may get lost with
  -- the worker, this cannot. Token and floor are those at the write; without a lock they are null.
  create table increments (id integer primary key, worker text not null, value integer not null, token integer, floor integer);
`;

/** The write was refused: somebody else has been granted the lock since. */
export class StaleTokenError extends Error {
  name = "StaleTokenError";

  /** @param {number} token */
  constructor(token) {
    super(`the token ${token} is lower than the highest that was used for ${RESOURCE}`);
    this.token = token;
  }
}

/** @param {string} path of a file that does not exist yet */
export function createDatabase(path) {
  const db = new Database(path);
  db.pragma("journal_mode = wal");
  db.exec(SCHEMA);
  db.close();
}

/** @param {string} path */
export function openDatabase(path) {
  const db = new Database(path, { timeout: 10_000 });

  const readValue = db.prepare("select value from counter").pluck();
  const readFloor = db.prepare("select token from fence where resource = ?").pluck();
  const update = db.prepare("update counter set value = ?");
  const updateFenced = db.prepare(
    "update counter set value = @value where @token >= (select token from fence where resource = @resource)",
  );
  const record = db.prepare("insert into increments (worker, value, token, floor) values (?, ?, ?, ?)");
  const raise = db.prepare(
    `insert into fence (resource, token) values (?, ?)
     on conflict (resource) do update set token = excluded.token where excluded.token >= token`,
  );

  const write = db.transaction((worker, value) => {
    update.run(value);
    record.run(worker, value, null, null);
  });
  // The check and the write are one statement in one transaction, so nobody can raise the floor between them. A change
  // of no row at all means that the token is stale: it must always be looked at.
  const writeFenced = db.transaction((worker, value, token) => {
    const { changes } = updateFenced.run({ value, token, resource: RESOURCE });
    if (changes === 0) throw new StaleTokenError(token);
    record.run(worker, value, token, readFloor.get(RESOURCE));
  });
  /** Only for the demonstration of what happens without a fence. */
  const writeUnfenced = db.transaction((worker, value, token) => {
    update.run(value);
    record.run(worker, value, token, readFloor.get(RESOURCE));
  });

  return {
    /** @returns {number} */
    read: () => readValue.get(),

    /** Writes whatever anybody else does. */
    write: (/** @type {string} */ worker, /** @type {number} */ value) => write.immediate(worker, value),

    /** Writes, unless a higher token has been used. Throws StaleTokenError. */
    writeFenced: (/** @type {string} */ worker, /** @type {number} */ value, /** @type {number} */ token) =>
      writeFenced.immediate(worker, value, token),

    writeUnfenced: (/** @type {string} */ worker, /** @type {number} */ value, /** @type {number} */ token) =>
      writeUnfenced.immediate(worker, value, token),

    /** Refuses all lower tokens from now on. Throws StaleTokenError if this one is too low itself. */
    raiseFloor(/** @type {number} */ token) {
      if (raise.run(RESOURCE, token).changes === 0) throw new StaleTokenError(token);
    },

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

/**
 * A process that does one thing to a SQLite file when it is told to. Started by sqlite-processes.test.ts with a job as
 * JSON; says "ready", waits for a message, and answers with what came of it.
 */
import { once } from "node:events";
import { sqliteFence } from "@leasehold/fence/sqlite";
import Database from "better-sqlite3";

const { file, job, tokens, bytes } = JSON.parse(process.argv[2]);
process.on("disconnect", () => process.exit(1));

const codeOf = (error) => error.code ?? String(error);

const jobs = {
  /** Makes the table of floors, and uses it. */
  async migrate(db) {
    const fence = sqliteFence(db);
    fence.migrate();
    await fence.raise({ name: "migrated", token: tokens[0] }).catch((error) => {
      if (error.code !== "STALE_TOKEN") throw error;
    });
    return "migrated";
  },

  /** One fenced write for each token, each with a line in the log. Returns how many were refused. */
  async write(db) {
    const fence = sqliteFence(db);
    const log = db.prepare("insert into log (token, seen) select ?, coalesce(max(token), 0) from log");
    let refused = 0;
    for (const token of tokens) {
      const claim = { name: "log", token, remainingMs: 60_000 };
      try {
        if (token % 3 === 0) await fence.raise(claim);
        fence.tx(claim, () => log.run(token));
      } catch (error) {
        if (error.code !== "STALE_TOKEN") throw error;
        refused++;
      }
    }
    return refused;
  },

  /** A write of so many bytes, behind the fence. */
  async fill(db) {
    const fence = sqliteFence(db);
    try {
      fence.tx({ name: "log", token: tokens[0] }, () =>
        db.prepare("insert into blobs values (?)").run(Buffer.alloc(bytes)),
      );
      return "written";
    } catch (error) {
      return [codeOf(error), error.cause ? codeOf(error.cause) : "", db.inTransaction];
    }
  },
};

const db = new Database(file, { timeout: 30_000 });
const goOn = once(process, "message");
process.send({ ready: true });
await goOn;
try {
  const result = await jobs[job](db);
  process.send({ result }, () => process.exit(0));
} catch (error) {
  process.send({ failed: `${codeOf(error)}: ${error.message}` }, () => process.exit(1));
}

/** Several processes on one SQLite file: what the locks of the operating system have to do with it, and its disk. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import { sqliteFence } from "@leasehold/fence/sqlite";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { TestFile } from "./sqlite-subject.js";

const script = fileURLToPath(new URL("./holders/sqlite-writer.mjs", import.meta.url));
/** For Node to start, and for what the processes do, on a busy machine. */
const LIMIT_MS = 45_000;

interface Said {
  readonly ready?: true;
  readonly result?: unknown;
  readonly failed?: string;
}

interface Job {
  readonly job: "migrate" | "write" | "fill";
  readonly tokens: readonly number[];
  readonly bytes?: number;
}

describe("SQLite between processes", () => {
  let file: TestFile;
  let children: ChildProcess[];
  beforeEach(() => {
    file = new TestFile();
    children = [];
  });
  afterEach(() => {
    for (const child of children) child.kill("SIGKILL");
    file.remove();
  });

  /** Starts a process; resolves, when it is ready, with what makes it begin. `limit`: of the size of files, in KiB. */
  async function start(job: Job, limitKib?: number): Promise<() => Promise<unknown>> {
    const command = [process.execPath, script, JSON.stringify({ ...job, file: file.path })];
    const limited = limitKib === undefined ? [] : ["sh", "-c", `ulimit -f ${limitKib * 2}; exec "$@"`, "sh"];
    const [program, ...args] = [...limited, ...command] as [string, ...string[]];
    const child = spawn(program, args, { stdio: ["ignore", "ignore", "inherit", "ipc"] });
    children.push(child);
    const signal = AbortSignal.timeout(LIMIT_MS);
    await once(child, "message", { signal });
    return async () => {
      const answer = once(child, "message", { signal }) as Promise<[Said]>;
      child.send("go on");
      const [said] = await answer;
      if (said.failed !== undefined) throw new Error(said.failed);
      return said.result;
    };
  }

  async function all(jobs: readonly Job[]): Promise<unknown[]> {
    const begin = await Promise.all(jobs.map((job) => start(job)));
    return Promise.all(begin.map((one) => one()));
  }

  for (const journal of ["wal", "delete"] as const) {
    it(`never writes behind a higher token, journal mode ${journal}`, async () => {
      const db = file.connect({ journal });
      sqliteFence(db).migrate();
      db.exec("create table log (id integer primary key, token integer not null, seen integer not null)");
      const seed = Number(process.env.LEASEHOLD_SEED ?? Date.now() % 1_000_000);
      const random = randomOf(seed);
      const writes = journal === "wal" ? 300 : 60;
      // Each goes up on the whole, and is often behind the others.
      const jobs = Array.from({ length: 4 }, () => ({
        job: "write" as const,
        tokens: Array.from({ length: writes }, (_, i) => 1 + 4 * i + Math.floor(random() * 100)),
      }));
      const refused = (await all(jobs)) as number[];

      const context = `seed ${seed}`;
      const log = db.prepare("select token, seen from log order by id").all() as { token: number; seen: number }[];
      for (const { token, seen } of log) expect(token, context).toBeGreaterThanOrEqual(seen);
      const refusedTotal = refused.reduce((sum, one) => sum + one, 0);
      expect(log.length + refusedTotal, context).toBe(4 * writes);
      expect(refusedTotal, `somebody was stale, ${context}`).toBeGreaterThan(0);
      expect(log.length, `somebody was not, ${context}`).toBeGreaterThan(0);
      const highest = Math.max(...jobs.flatMap(({ tokens }) => tokens));
      expect((await sqliteFence(db).inspect("log")).floor, context).toBe(highest);
    });
  }

  it("can be migrated by many at once", async () => {
    const jobs = Array.from({ length: 6 }, (_, i) => ({ job: "migrate" as const, tokens: [i + 1] }));
    expect(await all(jobs)).toEqual(Array(6).fill("migrated"));
    expect((await sqliteFence(file.connect()).inspect("migrated")).floor).toBe(6);
  });

  it("says OUTCOME_UNKNOWN when the disk fails in the commit", async () => {
    const db = file.connect();
    const fence = sqliteFence(db);
    fence.migrate();
    db.exec("create table blobs (bytes blob)");
    const begin = await start({ job: "fill", tokens: [5], bytes: 400_000 }, 128); // it fits into memory until the commit
    expect(await begin()).toEqual(["OUTCOME_UNKNOWN", expect.stringMatching(/^SQLITE_IOERR/), false]);
    expect(db.prepare("select count(*) from blobs").pluck().get()).toBe(0);
    fence.tx(exclusiveClaim(6), () => db.prepare("insert into blobs values (x'00')").run());
    expect(db.prepare("select count(*) from blobs").pluck().get(), "the file is as good as new").toBe(1);
  });
});

const exclusiveClaim = (token: number) => ({ name: "log", token });

/** Numbers from 0 to 1, the same for each seed. */
function randomOf(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state / 2 ** 32;
  };
}

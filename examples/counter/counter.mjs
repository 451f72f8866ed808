/**
 * Several processes increment one counter in an SQLite file by reading it, thinking, and writing it back: first without a
 * lock, then with Leasehold, while this script pauses holders of the lock for longer than their lease lasts, kills one,
 * and kills the server twice. The increments themselves are in worker.mjs, the fence is in database.mjs.
 *
 *     node counter.mjs [--processes 6] [--increments 100] [--without-fence]
 *
 * Exits 1 if one increment is lost under Leasehold or one stale write gets through, or if none was lost without a lock,
 * which would prove nothing. `--without-fence` shows what the fence is for: with the lock alone it exits 1.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { parseArgs } from "node:util";
import { Crew } from "./crew.mjs";
import { createDatabase, openDatabase } from "./database.mjs";
import { Server } from "./server.mjs";

const TTL = "2s";
const STEP_MS_MAX = 30_000;

const { values } = parseArgs({
  options: {
    processes: { type: "string", default: "6" },
    increments: { type: "string", default: "100" },
    "without-fence": { type: "boolean", default: false },
  },
});
const processes = wholeNumber("processes", 2, 64);
const increments = wholeNumber("increments", 10, 100_000);
const wanted = processes * increments;

function wholeNumber(option, min, max) {
  const value = Number(values[option]);
  if (Number.isInteger(value) && value >= min && value <= max) return value;
  console.error(`--${option} must be a whole number from ${min} to ${max}`);
  process.exit(64);
}

const startedAt = performance.now();
const say = (text) => console.log(`${((performance.now() - startedAt) / 1_000).toFixed(1).padStart(5)} s  ${text}`);

/** Waits until something is so; what it waits for happens in other processes. */
async function until(what, condition) {
  const giveUpAt = performance.now() + STEP_MS_MAX;
  while (!condition()) {
    if (performance.now() > giveUpAt) throw new Error(`waited for more than ${STEP_MS_MAX / 1_000} s until ${what}`);
    await delay(10);
  }
}

// ---------------------------------------------------------------------------------------------- the first phase

async function withoutLock(folder) {
  let result;
  // A machine with one slow core might be lucky: more to think makes it less so.
  for (let attempt = 0; attempt < 4; attempt++) {
    result = await race(join(folder, `without-${attempt}.db`), 400 * 4 ** attempt);
    if (result.lost > 0) break;
  }
  return result;
}

async function race(file, thinkRounds) {
  createDatabase(file);
  const job = { database: file, increments, thinkRounds };
  const crew = new Crew();
  for (let i = 1; i <= processes; i++) crew.add({ ...job, worker: `${i}` });
  await crew.begin();
  await crew.finish();
  return outcome("without a lock", file, {});
}

// ---------------------------------------------------------------------------------------------- the second phase

async function withLeasehold(folder) {
  const file = join(folder, "with.db");
  createDatabase(file);
  const server = await Server.start(join(folder, "store"));
  const crew = new Crew();
  const job = { database: file, increments, thinkRounds: 400, address: server.address, ttl: TTL };
  for (let i = 1; i <= processes; i++) crew.add({ ...job, worker: `${i}`, fence: !values["without-fence"] });

  await crew.begin();

  const database = openDatabase(file);
  const counts = { restarts: 0, killed: 0, pausedTokens: [] };
  await Promise.race([makeTrouble(crew, server, database, counts), crew.failure()]);
  await crew.finish();
  database.close();
  await server.kill("SIGTERM");
  return outcome("with Leasehold", file, { ...counts, refused: crew.refused });
}

/** Four times, evenly spread over the work, a holder is caught between its read and its write. */
async function makeTrouble(crew, server, database, counts) {
  const holderAt = async (share) => {
    await until(`${share * wanted} increments are done`, () => database.committed() >= share * wanted);
    return crew.interruptNext();
  };
  const overtaken = (token) => until("the lock is granted to the next", () => database.floor() > token);

  await pause(await holderAt(1 / 6), overtaken, counts);
  await killHolder(await holderAt(2 / 6), crew, database, counts);
  await restartServer(await holderAt(3 / 6), server, counts);
  await pause(await holderAt(4 / 6), overtaken, counts, server);
}

/** The holder stands still until its lease is over and the next one has begun. Then its write comes, too late. */
async function pause({ worker, token }, overtaken, counts, server) {
  worker.signal("SIGSTOP");
  counts.pausedTokens.push(token);
  say(`paused the holder (worker ${worker.name}, token ${token}) in the middle of its increment`);
  if (server) {
    await server.kill();
    await server.startAgain();
    counts.restarts++;
    say("killed the server (kill -9) and started it again");
  }
  await overtaken(token);
  say("its lease is over and the next one holds the lock: let it go on, and write");
  worker.goOn();
  worker.signal("SIGCONT");
}

/** A holder that dies frees the lock when its lease is over; another process does the rest of its work. */
async function killHolder({ worker, token }, crew, database, counts) {
  worker.signal("SIGKILL");
  await worker.ended;
  counts.killed++;
  const left = worker.job.increments - database.committed(worker.name);
  say(
    `killed the holder (kill -9, worker ${worker.name}, token ${token}); another takes over its last ${left} increments`,
  );
  const other = crew.add({ ...worker.job, worker: `${worker.name}b`, increments: left });
  await other.ready;
  other.goOn();
}

/** A holder that is alive keeps its lock through a restart of the server. */
async function restartServer({ worker, token }, server, counts) {
  await server.kill();
  await server.startAgain();
  counts.restarts++;
  say(`killed the server (kill -9) and started it again; the holder (worker ${worker.name}, token ${token}) goes on`);
  worker.goOn();
}

// ---------------------------------------------------------------------------------------------- the result

function outcome(phase, file, troubles) {
  const database = openDatabase(file);
  const committed = database.committed();
  const final = database.read();
  const stale = database.staleWrites();
  database.close();
  return { phase, committed, final, lost: committed - final, stale, ...troubles };
}

function printTable(results) {
  const columns = {
    phase: (r) => r.phase,
    processes: () => processes,
    wanted: () => wanted,
    committed: (r) => r.committed,
    "final value": (r) => r.final,
    lost: (r) => r.lost,
    "stale refused": (r) => r.refused?.length ?? "-",
    "server restarts": (r) => r.restarts ?? "-",
    "holders killed": (r) => r.killed ?? "-",
    "holders paused": (r) => r.pausedTokens?.length ?? "-",
  };
  const rows = [Object.keys(columns), ...results.map((r) => Object.values(columns).map((f) => `${f(r)}`))];
  const widths = rows[0].map((_, i) => Math.max(...rows.map((row) => row[i].length)));
  const line = (row) => row.map((cell, i) => (i === 0 ? cell.padEnd(widths[i]) : cell.padStart(widths[i]))).join("  ");
  console.log(`\n${rows.map(line).join("\n")}\n`);
}

function failures(without, withLock) {
  const found = [];
  const check = (fine, text) => fine || found.push(text);
  check(without.lost > 0, "without a lock no increment was lost: this run proves nothing");
  check(withLock.committed === wanted, `with Leasehold ${withLock.committed} of ${wanted} increments were made`);
  check(withLock.lost === 0, `with Leasehold ${withLock.lost} increments were lost`);
  check(withLock.stale === 0, `${withLock.stale} stale writes got through`);
  for (const token of withLock.pausedTokens) {
    check(withLock.refused.includes(token), `the late write with the token ${token} was not refused`);
  }
  return found;
}

const folder = mkdtempSync(join(tmpdir(), "leasehold-counter-"));
say(`${processes} processes increment a counter in ${folder}, each ${increments} times`);
const without = await withoutLock(folder);
say(`without a lock: ${without.lost} of ${without.committed} increments were lost`);
const withLock = await withLeasehold(folder);
printTable([without, withLock]);

const found = failures(without, withLock);
for (const text of found) console.log(`FAILED: ${text}`);
if (found.length === 0) {
  console.log("No increment was lost under the lock, and every stale write was refused by the fence.");
  rmSync(folder, { recursive: true, force: true });
}
process.exit(found.length === 0 ? 0 : 1);

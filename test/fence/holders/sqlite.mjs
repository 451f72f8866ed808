/**
 * A writer in SQLite that stands still inside its transaction. There everything is synchronous, so the transaction runs in
 * a thread, and the process goes on listening.
 */
import { once } from "node:events";
import { isMainThread, parentPort, Worker, workerData } from "node:worker_threads";

/** `config`: `file`, and `timeoutMs`, the busy timeout. `style: "row"`: one update, before which it stands still. */
export async function open({ file, timeoutMs, style }) {
  if (style === "row") return rowWriter(file, timeoutMs);
  return async (claim, value, inside) => {
    const gate = new Int32Array(new SharedArrayBuffer(4));
    const worker = new Worker(new URL(import.meta.url), { workerData: { file, timeoutMs, claim, value, gate } });
    const [first] = await once(worker, "message");
    if (!first.inside) throw Object.assign(new Error("not inside"), { code: first.code });
    const ended = once(worker, "message");
    await inside();
    Atomics.store(gate, 0, 1);
    Atomics.notify(gate, 0);
    const [{ code }] = await ended;
    if (code !== undefined) throw Object.assign(new Error("refused"), { code });
  };
}

/** Everything is checked, and nothing is sent. */
async function rowWriter(file, timeoutMs) {
  const { default: Database } = await import("better-sqlite3");
  const { sqliteFence } = await import("@leasehold/fence/sqlite");
  const fence = sqliteFence(new Database(file, { timeout: timeoutMs }));
  return async (claim, value, inside) => {
    // Without the time: what is to be shown is that the database refuses it.
    const { remainingMs: _, ...timeless } = claim;
    await inside();
    fence.updateRow(timeless, { table: "registers", set: { value }, where: { name: claim.name } });
  };
}

async function writeInThread({ file, timeoutMs, claim, value, gate }) {
  const { default: Database } = await import("better-sqlite3");
  const { sqliteFence } = await import("@leasehold/fence/sqlite");
  const fence = sqliteFence(new Database(file, { timeout: timeoutMs }));
  try {
    fence.tx(claim, (db) => {
      db.prepare("insert or replace into registers (name, value) values (?, ?)").run(claim.name, value);
      parentPort.postMessage({ inside: true });
      Atomics.wait(gate, 0, 0);
    });
    parentPort.postMessage({});
  } catch (error) {
    parentPort.postMessage({ code: error.code ?? String(error) });
  }
}

if (!isMainThread) await writeInThread(workerData);

/** A disk is lost, and the server goes on with what was restored from a backup: real servers, files and clients. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { createReadStream } from "node:fs";
import { readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { describe, expect, onTestFinished, test } from "vitest";
import { type Client, type ConnectOptions, connect, type Lock } from "../../src/client/index.js";
import { BackupReader } from "../../src/server/backup/reader.js";
import { fill } from "../../src/server/backup/restore.js";
import { Core, emptyEffects } from "../../src/server/core/core.js";
import type { Entry } from "../../src/server/journal/journal.js";
import { LevelJournal } from "../../src/server/journal/level.js";
import { environment, leasehold, program } from "../cli/support.js";
import { testLimits } from "../core/limits.js";
import { TestClient } from "../rpc/support.js";
import { Network, ServerProcess, temporaryFolder, until } from "./support.js";
import { load, mulberry32, Told } from "./told.js";

async function client(address: string, options: ConnectOptions = {}): Promise<Client> {
  const connected = await connect(address, options);
  connected.on("warning", () => undefined);
  onTestFinished(() => connected.close({ timeout: "1s" }));
  return connected;
}

async function succeed(...args: string[]): Promise<string> {
  const { code, stdout, stderr } = await leasehold(args);
  expect([code, stderr], args.join(" ")).toEqual([0, ""]);
  return stdout;
}

const backUp = (server: ServerProcess, file: string) => succeed("backup", file, "--addr", server.address, "--json");
const restore = (file: string, directory: string, ...flags: string[]) =>
  succeed("restore", file, "--store", `level:${directory}`, "--yes", ...flags);

async function entriesOf(file: string): Promise<Map<string, string>> {
  const entries: Entry[] = [];
  const reader = new BackupReader((verified) => entries.push(...verified));
  for await (const chunk of createReadStream(file)) reader.push(chunk as Buffer);
  expect(reader.end().entries).toBe(entries.length);
  return new Map(entries);
}

/** Tokens by the lock that they hold, in a backup. */
function holdsIn(entries: ReadonlyMap<string, string>): Map<string, number> {
  const holds = [...entries].filter(([key]) => key.startsWith("h/"));
  return new Map(holds.map(([key, value]) => [(JSON.parse(value) as [string])[0], Number(key.slice(2))]));
}

const ready = async (server: ServerProcess) => (await fetch(`http://${server.opsAddress}/readyz`)).text();

test("a backup under load holds all that was told before it began, and nothing of what came after its end", async () => {
  const seed = Number(process.env.LEASEHOLD_SEED ?? Date.now() % 1e9);
  console.log(`seed ${seed}`);
  const random = mulberry32(seed);
  const folder = await temporaryFolder();
  const server = await ServerProcess.start(`level:${folder}/data`);
  const told = new Told();
  let going = true;
  const loading = (async () => {
    for (let i = 0; going; i++) (await load(server, told, `load-${i}`, 3_000, random)).close();
  })();
  const pairs = await client(server.address);
  const pairing = (async () => {
    while (going) await (await pairs.acquireAll(["pair/a", "pair/b"])).release();
  })();
  let lastToken = 0;
  for (let round = 1; round <= 6; round++) {
    const grants = told.grants;
    await until(() => told.grants > grants + 2_000, 60_000);
    const [held, highest] = [new Map(told.held), told.highestToken];
    const file = join(folder, `backup-${round}`);
    const shown = JSON.parse(await backUp(server, file)) as { lastToken: number; holds: number; clusterId: string };
    const [after, highestAfter] = [new Map(told.held), told.highestToken];
    const entries = await entriesOf(file);
    const holds = holdsIn(entries);
    for (const [name, token] of held) expect(holds.get(name), name).toBe(token);
    for (const [name, token] of told.released) if (token <= highest) expect(holds.get(name), name).not.toBe(token);
    expect(shown.lastToken).toBeGreaterThanOrEqual(Math.max(highest, lastToken));
    lastToken = shown.lastToken;
    const late = [...holds].filter(([, token]) => token > shown.lastToken);
    expect(late, "a hold above the last token").toEqual([]);
    // What is held of it and was told later was in flight then: its token was granted before the cut.
    for (const [name, token] of after) if (token > shown.lastToken) expect(holds.has(name), name).toBe(false);
    expect(holds.has("pair/a"), "of two locks that are taken together").toBe(holds.has("pair/b"));
    expect(shown.holds).toBe(holds.size);
    expect(highestAfter).toBeGreaterThan(highest);
    // The core takes nothing that contradicts itself.
    const init = { limits: { ...testLimits, leasesMax: 1e6, locksMax: 1e6 }, clusterId: shown.clusterId, nowMs: 0 };
    expect(Core.recover(entries, init, emptyEffects()).counts.lastToken).toBe(shown.lastToken);
  }
  going = false;
  await Promise.all([loading, pairing]);
  expect(server.log).toContain("a backup was made");
}, 180_000);

test("the restored server issues only higher tokens and timestamps, and knows its clients by the same identity", async () => {
  const folder = await temporaryFolder();
  const file = join(folder, "backup");
  const old = await ServerProcess.start(`level:${folder}/old`);
  const survivor = await client(old.address, { ttl: "60s" });
  const before = await survivor.acquire("before");
  await backUp(old, file);
  const lost: Lock[] = [];
  for (let i = 0; i < 50; i++) lost.push(await survivor.acquire(`since/${i}`));
  const highest = (lost.at(-1) as Lock).token;
  const seen = survivor.clock.now();
  await old.kill();
  await rm(join(folder, "old"), { recursive: true });

  await restore(file, join(folder, "new"), "--advance-tokens", "1000", "--clients-stopped");
  const server = await ServerProcess.start(`level:${folder}/new`, "--listen", old.address);
  // The survivor comes back by itself, and is told that it has lost everything: what it had before the backup too.
  await until(() => [before, ...lost].every((lock) => lock.signal.aborted));
  const other = await client(server.address);
  for (const name of ["before", "since/0", "new"]) {
    const lock = await (name === "new" ? other : survivor).acquire(name);
    expect(lock.token).toBeGreaterThan(highest);
    expect(lock.grant.timestamp).toBeGreaterThan(seen);
  }
  expect(await server.metric("leasehold_halted")).toBe(0);
});

test("an advance that was too small: the first client that has seen a higher token stops the server", async () => {
  const folder = await temporaryFolder();
  const file = join(folder, "backup");
  const old = await ServerProcess.start(`level:${folder}/old`);
  const survivor = await client(old.address);
  await backUp(old, file);
  for (let i = 0; i < 50; i++) await (await survivor.acquire("a")).release();
  await old.kill();

  await restore(file, join(folder, "new"), "--advance-tokens", "10", "--clients-stopped");
  const server = await ServerProcess.start(`level:${folder}/new`, "--listen", old.address);
  const fresh = await client(server.address);
  const coming = survivor.acquire("a", { wait: "2s" }).catch((error: Error) => error);
  await until(async () => (await server.metric("leasehold_halted")) === 1);
  expect(await ready(server)).toMatch(/a client has seen token 50, but this store has granted only up to 10/);
  await expect(fresh.acquire("b", { wait: 0 })).rejects.toMatchObject({ code: "STORE_DOWN" });
  expect(await coming).toBeInstanceOf(Error);
  expect(server.log).toMatch(/a client has seen token 50/);

  // A client of another store is not let in either.
  const { clusterId } = JSON.parse(await succeed("status", "--addr", server.address, "--json")) as {
    clusterId: string;
  };
  const stranger = new TestClient(server.address);
  onTestFinished(() => stranger.close());
  const stream = stranger.attach().hello({ clusterId: "f00d".repeat(8), highestToken: 1 });
  await until(() => stream.failure !== null);
  expect(stream.failure?.details).toMatchObject({
    reason: "CLUSTER_MISMATCH",
    message: `the client comes from cluster ${"f00d".repeat(8)}, this is ${clusterId}`,
  });
});

describe("a client that was granted a lock after the backup, and cannot be reached", () => {
  const TTL_MS = 8_000;

  /** Returns when the holder stopped to believe, and when somebody else was granted its lock; and how. */
  async function timeline(...flags: string[]) {
    const folder = await temporaryFolder();
    const file = join(folder, "backup");
    const limits = ["--limits-ttl-ms-max", `${TTL_MS}ms`, "--limits-ttl-ms-default", `${TTL_MS}ms`];
    const old = await ServerProcess.start(`level:${folder}/old`, ...limits);
    const network = await Network.to(old.address);
    const holder = await client(network.address, { ttl: TTL_MS });
    await backUp(old, file);
    const held = await holder.acquire("job");
    const { token } = held; // it cannot be asked for once the lock is lost
    const lostAt = new Promise<number>((resolve) => {
      held.signal.addEventListener("abort", () => resolve(performance.now()));
    });
    network.refuse();
    network.cut();
    await old.kill();
    await restore(file, join(folder, "new"), "--advance-tokens", "1000", ...flags);
    const server = await ServerProcess.start(`level:${folder}/new`, "--listen", old.address, ...limits);
    const why = await ready(server);
    const other = await client(server.address, { ttl: TTL_MS });
    const next = await other.acquire("job", { wait: "30s" });
    const [grantedAt, believed] = [performance.now(), !held.signal.aborted];
    return { token, next, believed, grantedAt, lostAt: await lostAt, why, server };
  }

  test("is over before anybody else is granted that lock", async () => {
    const { token, next, believed, grantedAt, lostAt, why, server } = await timeline();
    expect(why).toMatch(/the store was restored from a backup: nothing is granted for another [1-8] s/);
    expect(believed).toBe(false);
    expect(grantedAt).toBeGreaterThan(lostAt);
    expect(next.token).toBeGreaterThan(token);
    expect(await ready(server)).toMatch(/^ready|^ok/);
    expect(await server.metric("leasehold_restore_quiet_seconds")).toBe(0);
  }, 60_000);

  test("would believe beside the next holder, were nothing awaited: that is what --clients-stopped says", async () => {
    const { token, next, believed } = await timeline("--clients-stopped");
    expect(believed).toBe(true);
    expect(next.token, "a fence keeps the old holder from harm").toBeGreaterThan(token);
  }, 60_000);
});

describe("killed in the middle", () => {
  const ENTRIES = 80_000;
  const HEADER = JSON.stringify([77, 2_000_000, 77, 1, 1_000]);

  /** A store with much in it that a restore keeps. */
  async function largeStore(folder: string): Promise<string> {
    const directory = join(folder, "large");
    const journal = new LevelJournal(directory);
    const entries = Array.from({ length: ENTRIES }, (_, i): Entry => [`q//request-${i}`, '["ended",1]']);
    await fill(journal, [["!", HEADER], ...entries]);
    await journal.close();
    return directory;
  }

  /** Runs `leasehold` and kills it after so long, unless it has ended. */
  async function killed(afterMs: number, args: readonly string[]): Promise<boolean> {
    const child = spawn(process.execPath, [program, ...args], { env: environment(), stdio: "ignore" });
    const ended = once(child, "exit");
    await Promise.race([sleep(afterMs), ended]);
    child.kill("SIGKILL");
    return ((await ended) as [number | null])[0] === null;
  }

  test("a backup is whole, or has no name that could be taken for one; the server goes on", async () => {
    const folder = await temporaryFolder();
    const server = await ServerProcess.start(`level:${await largeStore(folder)}`);
    const file = join(folder, "backup");
    const startedMs = performance.now();
    await backUp(server, file);
    const wholeMs = performance.now() - startedMs;
    const size = (await stat(file)).size;
    await rm(file);
    let [cut, partial] = [0, 0];
    for (let i = 1; i <= 8; i++) {
      if (await killed((wholeMs * i) / 8, ["backup", file, "--addr", server.address])) cut++;
      const files = await readdir(folder);
      if (files.includes("backup")) {
        expect((await stat(file)).size).toBeGreaterThanOrEqual(size - 10);
        await succeed("backup", file, "--verify");
        await rm(file);
      } else if (files.includes("backup.partial") && (await stat(`${file}.partial`)).size < size - 10) {
        partial++;
        const { code, stderr } = await leasehold(["backup", `${file}.partial`, "--verify"]);
        expect([code, stderr]).toEqual([65, expect.stringMatching(/backup\.partial (is cut short|is empty)/)]);
      }
    }
    expect(cut).toBeGreaterThan(2);
    console.log(`${cut} backups killed, ${partial} partial files seen`);
    // The one that was cut off is over, for the server too.
    await until(async () => (await leasehold(["backup", file, "--addr", server.address])).code === 0);
    expect((await readdir(folder)).sort()).toEqual(["backup", "large"]);
  }, 120_000);

  test("a restore leaves a store that is whole, or refused, or nothing", async () => {
    const folder = await temporaryFolder();
    const server = await ServerProcess.start(`level:${await largeStore(folder)}`);
    const file = join(folder, "backup");
    const { clusterId } = JSON.parse(await backUp(server, file)) as { clusterId: string };
    await server.kill();
    const startedMs = performance.now();
    await restore(file, join(folder, "whole"), "--advance-tokens", "1000");
    const wholeMs = performance.now() - startedMs;
    const outcomes = { whole: 0, refused: 0, nothing: 0 };
    for (let i = 1; i <= 12; i++) {
      const directory = join(folder, `restored-${i}`);
      const args = ["restore", file, "--store", `level:${directory}`, "--yes", "--advance-tokens", "1000"];
      await killed(wholeMs * (0.4 + (0.65 * i) / 12), args);
      const journal = new LevelJournal(directory);
      const found = await journal.open().catch((error: Error & { reason?: string }) => error);
      await journal.close();
      if (found instanceof Error) {
        expect(found.message).toMatch(/holds a restore that is going on or was interrupted; delete the directory/);
        expect(found.reason).toBe("half_restored");
        const { code, stderr } = await leasehold(args);
        expect([code, stderr]).toEqual([78, expect.stringContaining("interrupted; delete the directory")]);
        outcomes.refused++;
      } else if (found.clusterId === clusterId) {
        expect(found.entries.size).toBe(ENTRIES + 2);
        expect(JSON.parse(found.entries.get("!") ?? "[]")[0]).toBe(1_077);
        outcomes.whole++;
      } else {
        expect(found.entries.size).toBe(0);
        outcomes.nothing++;
      }
      await rm(directory, { recursive: true });
    }
    console.log(outcomes);
    expect(outcomes.refused).toBeGreaterThan(0);
  }, 240_000);
});

test("a damaged file is restored by nobody, and says where it is damaged", async () => {
  const folder = await temporaryFolder();
  const server = await ServerProcess.start(`level:${folder}/data`);
  const file = join(folder, "backup");
  await backUp(server, file);
  const bytes = await readFile(file);
  expect((await stat(file)).mode & 0o777).toBe(0o600);
  const damaged = join(folder, "damaged");
  bytes[bytes.indexOf("\n") + 3] = 0x21;
  await writeFile(damaged, bytes);
  const store = `level:${folder}/new`;
  for (const args of [
    ["backup", damaged, "--verify"],
    ["restore", damaged, "--store", store, "--yes", "--advance-tokens", "5"],
  ]) {
    const { code, stdout, stderr } = await leasehold(args);
    expect([code, stdout]).toEqual([65, ""]);
    expect(stderr).toMatch(/damaged is damaged, between byte 0 and byte \d+\n$/);
  }
  expect(await readdir(folder)).not.toContain("new");
});

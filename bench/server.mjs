/** The server under test, in a process of its own, on a store in a temporary folder. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";

const LEASEHOLD = fileURLToPath(new URL("../dist/cli/main.js", import.meta.url));

async function freePort() {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address();
  server.close();
  await once(server, "close");
  return port;
}

/** What Node has to be told to write a CPU profile into a folder when it ends. */
export const profileArguments = (folder, who) =>
  folder === undefined ? [] : ["--cpu-prof", "--cpu-prof-dir", folder, "--cpu-prof-name", `${who}.cpuprofile`];

/**
 * @param {"level" | "memory"} store
 * @param {{ folder?: string | undefined, profile?: string | undefined, flags?: string[] }} options folder: where the store's
 *   folder is made
 */
export async function startServer(store, { folder, profile, flags = [] }) {
  const temporary = mkdtempSync(join(folder ?? tmpdir(), "leasehold-bench-"));
  const address = `127.0.0.1:${await freePort()}`;
  const ops = `127.0.0.1:${await freePort()}`;
  const where = store === "memory" ? "memory:" : `level:${join(temporary, "store")}`;
  const serve = ["serve", "--listen", address, "--ops-listen", ops, "--store", where, "--log-level", "warn", ...flags];
  const command = [...profileArguments(profile, `server-${store}`), LEASEHOLD, ...serve];
  const child = spawn(process.execPath, command, { stdio: ["ignore", "pipe", "pipe"] });
  let log = "";
  const keep = (chunk) => {
    log = (log + chunk).slice(-4_000);
  };
  child.stdout.on("data", keep);
  child.stderr.on("data", keep);
  const killNow = () => child.kill("SIGKILL");
  process.on("exit", killNow);

  const ready = async () => {
    const response = await fetch(`http://${ops}/readyz`).catch(() => undefined);
    await response?.arrayBuffer();
    return response?.ok === true;
  };
  for (const giveUpAt = Date.now() + 15_000; !(await ready()); await delay(25)) {
    if (child.exitCode !== null || Date.now() > giveUpAt) throw new Error(`no server:\n${log}`);
  }

  return {
    address,
    pid: child.pid,
    /** What it has done so far: records of the journal, commands in them, the time that their commits took; CPU time. */
    async figures() {
      const text = await (await fetch(`http://${ops}/metrics`)).text();
      const value = (name) => Number(new RegExp(`^${name}(?:\\{[^}]*\\})? (\\S+)$`, "m").exec(text)?.[1]);
      return {
        records: value("leasehold_journal_batch_commands_count"),
        commands: value("leasehold_journal_batch_commands_sum"),
        commits: value("leasehold_journal_commit_duration_seconds_count"),
        commitSeconds: value("leasehold_journal_commit_duration_seconds_sum"),
        cpuSeconds: value("process_cpu_seconds_total"),
      };
    },
    /** The last that it said. */
    log: () => log,
    async stop() {
      const ended = child.exitCode === null ? once(child, "exit") : undefined;
      child.kill("SIGTERM");
      await ended;
      process.off("exit", killNow);
      rmSync(temporary, { recursive: true, force: true });
    },
  };
}

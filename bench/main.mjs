/**
 * The benchmark: a server and a client, each in a process of its own, on this machine.
 *
 *     npm run bench -- [--full] [--json FILE] [--profile FOLDER] [--in-flight 64,256] [--folder FOLDER]
 *
 * Measures acquire and release of distinct locks by one client, first durable (on `level`), then in memory, which is the
 * upper bound that the transport sets; then what other modes, sets and watching cost, a lock's change of hands, a unary
 * call and a renewal. All figures are medians over several windows after a warm-up. `--full` takes longer windows and more
 * of them. `--folder` puts the store on another disk than that of the temporary files. `--profile` writes CPU profiles of
 * both sides and prints where they spent their time; then only the pairs are measured, and slower than without.
 */
import { fork } from "node:child_process";
import { once } from "node:events";
import { closeSync, fdatasyncSync, mkdirSync, mkdtempSync, openSync, rmSync, writeFileSync, writeSync } from "node:fs";
import { cpus, tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { printProfile } from "./profile.mjs";
import { median, ms, percent, printTable, ratio, summarise, whole } from "./report.mjs";
import { profileArguments, startServer } from "./server.mjs";

const CLIENT = fileURLToPath(new URL("client.mjs", import.meta.url));

/** Pairs per second by number in flight on a machine with 2 cores and an fdatasync of 0.18 ms: something to compare with. */
const REFERENCE = { 1: 816, 16: 12_163, 64: 35_873, 256: 82_554, 1024: 125_342 };

const { values } = parseArgs({
  options: {
    full: { type: "boolean", default: false },
    json: { type: "string" },
    profile: { type: "string" },
    "in-flight": { type: "string", default: Object.keys(REFERENCE).join(",") },
    folder: { type: "string" },
  },
});
const levels = values["in-flight"].split(",").map(Number);
if (!levels.every((n) => Number.isInteger(n) && n >= 1 && n <= 8_192)) {
  console.error("--in-flight must be whole numbers from 1 to 8192, separated by commas");
  process.exit(64);
}
const profile = values.profile && resolve(values.profile);
if (profile) mkdirSync(profile, { recursive: true });
const plan =
  values.full || profile
    ? { warmUpMs: 3_000, windowMs: 5_000, windows: 5 }
    : { warmUpMs: 800, windowMs: 800, windows: 3 };

/** What the disk itself takes, in milliseconds: the median over writes of 4 KiB, each followed by fdatasync. */
function syncMs() {
  const folder = mkdtempSync(join(values.folder ?? tmpdir(), "leasehold-bench-"));
  const file = openSync(join(folder, "sync"), "w");
  const block = Buffer.alloc(4_096, 1);
  const times = Array.from({ length: 200 }, () => {
    const startedAt = performance.now();
    writeSync(file, block);
    fdatasyncSync(file);
    return performance.now() - startedAt;
  });
  closeSync(file);
  rmSync(folder, { recursive: true });
  return median(times);
}

/** Runs `work` with a fresh server and a fresh client on it. */
async function onStore(store, work) {
  const server = await startServer(store, { folder: values.folder, profile });
  const execArgv = profileArguments(profile, `client-${store}`);
  const child = fork(CLIENT, [server.address], { execArgv });
  const killNow = () => child.kill("SIGKILL");
  process.on("exit", killNow);
  const ended = once(child, "exit").then(() => []);
  let onAnswer;
  child.on("message", (message) => onAnswer([message]));
  const answer = async () => {
    const received = new Promise((resolve) => {
      onAnswer = resolve;
    });
    const [message] = await Promise.race([received, ended]);
    if (message === undefined) throw new Error(`the client ended; the server said:\n${server.log()}`);
    return message;
  };
  await answer();
  await work(async (workload, size, changed = {}) => {
    const before = await server.figures();
    child.send({ workload, size, plan: { ...plan, ...changed } });
    const { windows, operations } = await answer();
    const after = await server.figures();
    const grown = (figure) => after[figure] - before[figure];
    const batch = grown("commands") / grown("records");
    const commitMs = (1_000 * grown("commitSeconds")) / grown("commits");
    const serverCpuUs = (1e6 * grown("cpuSeconds")) / operations;
    return { size, ...summarise(windows), serverCpuUs, batch, commitMs, windows };
  });
  child.send("end");
  await ended;
  process.off("exit", killNow);
  await server.stop();
}

async function runPairs(run) {
  // The first figures would be those of a compiler at work.
  await run("pairs", 256, { windows: 1, windowMs: values.full ? 5_000 : 1_500 });
  const results = [];
  for (const inFlight of levels) results.push(await run("pairs", inFlight));
  return results;
}

function printPairs(title, results, compared, heading) {
  console.log(`\n${title}`);
  const latency = Object.keys(results[0].latencyMs.acquire);
  printTable(
    [
      "in flight",
      "pairs/s",
      "spread",
      heading,
      ...latency.map((p) => `${p} ms`),
      "acquire p50",
      "p99",
      "batch",
      "commit ms",
      "CPU us: server",
      "client",
    ],
    results.map((r) => [
      `${r.size}`,
      whole(r.perSecond),
      percent(r.spread),
      compared(r) === undefined ? "-" : ratio(r.perSecond / compared(r)),
      ...latency.map((p) => ms(r.latencyMs.pair[p])),
      ms(r.latencyMs.acquire.p50),
      ms(r.latencyMs.acquire.p99),
      r.batch.toFixed(1),
      ms(r.commitMs),
      ms(r.serverCpuUs),
      ms(r.clientCpuUs),
    ]),
  );
}

const MODES = {
  pairs: "exclusive, locks of their own",
  readers: "shared, one lock",
  permits: "permits of one semaphore",
  sets: "four locks together",
  watchedPairs: "exclusive, all of it watched",
};

function printModes(results) {
  console.log("\ndurable, 256 in flight, each acquire and release");
  const [pairs] = results;
  printTable(
    ["what", "per s", "x exclusive", "p50 ms", "p99 ms", "CPU us: server", "client"],
    results.map((r) => [
      MODES[r.workload],
      whole(r.perSecond),
      ratio(r.perSecond / pairs.perSecond),
      ms(r.latencyMs.pair.p50),
      ms(r.latencyMs.pair.p99),
      ms(r.serverCpuUs),
      ms(r.clientCpuUs),
    ]),
  );
}

function printOthers({ modes, handover, unary, renewals }) {
  printModes(modes);
  console.log("");
  const { wait } = handover.latencyMs;
  console.log(
    `one lock, ${handover.size} waiters: ${whole(handover.perSecond)} handovers/s (wait p50 ${ms(wait.p50)} ms)`,
  );
  const { pair } = unary.latencyMs;
  console.log(`unary, ${unary.size} in flight: ${whole(unary.perSecond)} pairs/s (p50 ${ms(pair.p50)} ms)`);
  console.log(`one session with ${whole(renewals.size)} leases: ${whole(renewals.perSecond)} renewals/s`);
}

const report = {
  node: process.version,
  cpu: cpus()[0]?.model,
  cores: cpus().length,
  plan,
  syncMs: syncMs(),
};
console.log(`Node ${report.node}, ${report.cores} cores (${report.cpu}), fdatasync of 4 KiB: ${ms(report.syncMs)} ms`);

await onStore("level", async (run) => {
  report.durable = await runPairs(run);
  printPairs(
    "durable: every grant and release on disk before it is answered; latency of a pair",
    report.durable,
    (r) => REFERENCE[r.size],
    "x reference",
  );
  if (profile) return;
  report.modes = [];
  for (const workload of ["pairs", "readers", "permits", "sets"]) {
    report.modes.push({ workload, ...(await run(workload, 256)) });
  }
  report.handover = await run("handover", 64);
  report.unary = await run("unary", 64);
  report.renewals = await run("renewals", 1_000);
  report.modes.push({ workload: "watchedPairs", ...(await run("watchedPairs", 256)) }); // the watch stays
});
if (!profile) {
  await onStore("memory", async (run) => {
    report.memory = await runPairs(run);
    const durable = new Map(report.durable.map((r) => [r.size, r.perSecond]));
    printPairs("in memory", report.memory, (r) => durable.get(r.size), "x durable");
  });
  printOthers(report);
} else {
  printProfile(join(profile, "server-level.cpuprofile"));
  printProfile(join(profile, "client-level.cpuprofile"));
}
if (values.json) writeFileSync(values.json, `${JSON.stringify(report, null, 2)}\n`);

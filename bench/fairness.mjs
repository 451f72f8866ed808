/**
 * Fairness: what the others notice of a client that asks for 50 times its quota.
 *
 *     npm run bench:fairness -- [KIND…] [--rounds N] [--seconds N] [--json FILE]
 *
 * A durable server in a process of its own, with a quota of 200 requests a second for each principal. Four of them take
 * and release locks at half of that. Windows without and with noise alternate, so that whatever else the machine does
 * meets both. Figures are of all windows together; "x quiet" is the median of the ratios of neighbouring windows.
 */
import { fork } from "node:child_process";
import { createHash, randomBytes } from "node:crypto";
import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { setPriority, tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { median, ms, percent, printTable, ratio, whole } from "./report.mjs";
import { startServer } from "./server.mjs";

const QUOTA = 200;
const TIMES_QUOTA = 50;
const QUIET = ["anna", "bert", "cleo", "dora"];
/** One for each kind of noise. */
const NOISY = Array.from({ length: 7 }, (_, i) => `noisy-${i}`);
/** For connections to be made, and a first burst to be used up. */
const SETTLE_MS = 1_500;

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    rounds: { type: "string", default: "7" },
    seconds: { type: "string", default: "3" },
    json: { type: "string" },
  },
});
const rounds = Number(values.rounds);
const windowMs = Number(values.seconds) * 1_000;

/** Tokens, their file, and a policy. */
function credentials(folder) {
  const tokens = Object.fromEntries([...QUIET, ...NOISY].map((name) => [name, randomBytes(32).toString("base64url")]));
  const hash = (token) => createHash("sha256").update(token).digest("hex");
  const lines = Object.entries(tokens).map(([name, token]) => `${name} sha256:${hash(token)}\n`);
  writeFileSync(join(folder, "tokens"), lines.join(""));
  const policy = {
    rules: [{ principal: "*", prefix: "", verbs: ["acquire", "observe"] }],
    quotas: [{ principal: "*", requestsPerSecond: QUOTA, requestsBurst: QUOTA }],
  };
  writeFileSync(join(folder, "policy.yaml"), JSON.stringify(policy)); // which is YAML as well
  return tokens;
}

try {
  // Whatever is started inherits it, with all its threads: before what else this machine does.
  setPriority(-10);
} catch {
  // Somebody who is not root: then the figures are those of a machine that does other things as well.
}

/** A process that answers each message with one. */
async function start(file, ...args) {
  const child = fork(fileURLToPath(new URL(`fairness/${file}`, import.meta.url)), args);
  const killNow = () => child.kill("SIGKILL");
  process.on("exit", killNow);
  const ended = once(child, "exit").then(() => []);
  let onMessage;
  child.on("message", (message) => onMessage?.([message]));
  const answer = async () => {
    const received = new Promise((resolve) => {
      onMessage = resolve;
    });
    const [message] = await Promise.race([received, ended]);
    if (message === undefined) throw new Error(`${file} ended`);
    return message;
  };
  const first = await answer();
  const ask = (message) => {
    const answered = answer();
    child.send(message);
    return answered;
  };
  const stop = async () => {
    child.disconnect();
    await ended;
    process.off("exit", killNow);
  };
  return { first, ask, send: (message) => child.send(message), answer, stop };
}

function percentile(values, p) {
  const sorted = Float64Array.from(values).sort();
  return sorted[Math.min(sorted.length - 1, Math.ceil((p / 100) * sorted.length) - 1)];
}

/** Seconds of processor time that a process has taken; not a number where that is not told. */
function cpuSeconds(pid) {
  try {
    const fields = readFileSync(`/proc/${pid}/stat`, "utf8").split(") ")[1].split(" ");
    return (Number(fields[11]) + Number(fields[12])) / 100;
  } catch {
    return Number.NaN;
  }
}

/** A window of the others, with the share of a processor that the server took. */
async function windowOf(quiet) {
  const before = cpuSeconds(server.pid);
  const startedAt = performance.now();
  const { ms: latencies, failures } = await quiet.ask(windowMs);
  const cpu = (cpuSeconds(server.pid) - before) / ((performance.now() - startedAt) / 1_000);
  return { ms: latencies, failures, cpu };
}

async function measure(kind, quiet, noisy) {
  const cpu = { quiet: [], noise: [] };
  const measured = { quiet: [], noise: [], rounds: [], failures: [], asked: 0, served: 0, refused: 0, ended: 0 };
  let noiseSeconds = 0;
  const startedAt = performance.now();
  for (let round = 0; round < rounds; round++) {
    const without = await windowOf(quiet);
    const told = noisy.answer();
    noisy.send(kind);
    await delay(SETTLE_MS);
    const beside = await windowOf(quiet);
    noisy.send("stop");
    const { seconds, ...noise } = await told;
    noiseSeconds += seconds;
    for (const what of ["asked", "served", "refused", "ended"]) measured[what] += noise[what];
    cpu.quiet.push(without.cpu);
    cpu.noise.push(beside.cpu);
    measured.quiet.push(...without.ms);
    measured.noise.push(...beside.ms);
    measured.failures.push(...without.failures, ...beside.failures);
    measured.rounds.push({ quietP99: percentile(without.ms, 99), besideP99: percentile(beside.ms, 99) });
    await delay(SETTLE_MS / 3); // what the noise has left behind
  }
  const wallSeconds = (performance.now() - startedAt) / 1_000;
  const percentiles = (of) => ({ p50: percentile(of, 50), p99: percentile(of, 99), max: percentile(of, 100) });
  return {
    kind,
    served: measured.served,
    wallSeconds,
    askedPerSecond: measured.asked / noiseSeconds,
    servedPerSecond: measured.served / noiseSeconds,
    refusedPerSecond: measured.refused / noiseSeconds,
    streamsEnded: measured.ended,
    quiet: percentiles(measured.quiet),
    noise: percentiles(measured.noise),
    ratio: median(measured.rounds.map(({ quietP99, besideP99 }) => besideP99 / quietP99)),
    cpu: { quiet: median(cpu.quiet), noise: median(cpu.noise) },
    rounds: measured.rounds,
    failures: measured.failures,
  };
}

const folder = mkdtempSync(join(tmpdir(), "leasehold-fairness-"));
const tokens = credentials(folder);
const flags = ["--auth-tokens", join(folder, "tokens"), "--policy", join(folder, "policy.yaml"), "--audit-log", "none"];
const server = await startServer("level", { flags });
const quiet = await start("quiet.mjs", server.address, `${QUOTA / 2}`, ...QUIET.map((name) => tokens[name]));
const noisy = await start("noise.mjs", server.address, `${QUOTA * TIMES_QUOTA}`, ...NOISY.map((name) => tokens[name]));
if (noisy.first.length !== NOISY.length) throw new Error(`there are ${noisy.first.length} kinds of noise`);
await quiet.ask(windowMs); // to warm up

const results = [];
for (const kind of noisy.first) {
  if (positionals.length > 0 && !positionals.some((part) => kind.includes(part))) continue;
  results.push(await measure(kind, quiet, noisy));
}
await quiet.stop();
await noisy.stop();
await server.stop();
rmSync(folder, { recursive: true });

console.log(
  `4 principals at half of ${QUOTA} requests/s, beside one that asks for ${TIMES_QUOTA} times that; acquire, ms`,
);
printTable(
  [
    "noise",
    "asked/s",
    "served/s",
    "refused/s",
    "quiet p50",
    "p99",
    "beside p50",
    "p99",
    "x quiet",
    "CPU",
    "beside",
    "failed",
  ],
  results.map((r) => [
    r.kind,
    whole(r.askedPerSecond),
    whole(r.servedPerSecond),
    whole(r.refusedPerSecond),
    ms(r.quiet.p50),
    ms(r.quiet.p99),
    ms(r.noise.p50),
    ms(r.noise.p99),
    ratio(r.ratio),
    percent(r.cpu.quiet),
    percent(r.cpu.noise),
    `${r.failures.length}`,
  ]),
);
for (const { kind, failures } of results) if (failures.length > 0) console.log(`${kind}: ${failures[0]}`);
if (values.json) writeFileSync(values.json, `${JSON.stringify(results, null, 2)}\n`);

/**
 * What a fence costs: the fenced write beside the plain one, on the same connection of the same real storage.
 *
 *     npm run bench:fence -- [SYSTEM…] [--rounds N] [--json FILE]
 *
 * Plain and fenced writes alternate in short bursts, so that whatever else the machine does meets both. The figures are
 * medians over the bursts; "x plain" is the median of the ratios of neighbouring bursts. SYSTEM: postgres, mysql, sqlite,
 * redis, etcd, http, cache, rabbitmq, kafka.
 */
import { readdirSync, writeFileSync } from "node:fs";
import { basename } from "node:path";
import { parseArgs } from "node:util";
import { median, ms, printTable, ratio } from "./report.mjs";

const BURST = 20;
const folder = new URL("fence/", import.meta.url);
const systems = readdirSync(folder).map((file) => basename(file, ".mjs"));

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { rounds: { type: "string", default: "25" }, json: { type: "string" } },
});
const rounds = Number(values.rounds);
const unknown = positionals.filter((system) => !systems.includes(system));
if (unknown.length > 0 || !Number.isInteger(rounds) || rounds < 3 || rounds > 10_000) {
  console.error(`usage: npm run bench:fence -- [${systems.join(" ")}] [--rounds 3..10000] [--json FILE]`);
  process.exit(64);
}

/** Milliseconds of one write, over a burst of them, one after the other. */
async function burst(write) {
  const startedAt = performance.now();
  for (let i = 0; i < BURST; i++) await write();
  return (performance.now() - startedAt) / BURST;
}

async function measure({ title, plain, fenced }) {
  const plainMs = [];
  const fencedMs = [];
  for (let i = 0; i < 3; i++) {
    await burst(plain);
    await burst(fenced);
  }
  for (let i = 0; i < rounds; i++) {
    const [first, second] = i % 2 === 0 ? [plain, fenced] : [fenced, plain];
    const times = [await burst(first), await burst(second)];
    const [p, f] = i % 2 === 0 ? times : times.reverse();
    plainMs.push(p);
    fencedMs.push(f);
  }
  const ratios = fencedMs.map((f, i) => f / plainMs[i]);
  return { title, plainMs: median(plainMs), fencedMs: median(fencedMs), ratio: median(ratios) };
}

const report = [];
for (const system of positionals.length > 0 ? positionals : systems) {
  process.stderr.write(`${system}…\n`);
  const { open } = await import(new URL(`${system}.mjs`, folder));
  const { rows, close } = await open();
  try {
    for (const row of rows) report.push({ system, ...(await measure(row)) });
  } finally {
    await close();
  }
}
printTable(
  ["system", "write", "plain ms", "fenced ms", "x plain"],
  report.map((r) => [r.system, r.title, ms(r.plainMs), ms(r.fencedMs), ratio(r.ratio)]),
  0,
);
if (values.json) writeFileSync(values.json, `${JSON.stringify(report, null, 2)}\n`);
process.exit(0); // drivers keep connections to services that are gone

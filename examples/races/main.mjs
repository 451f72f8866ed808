/**
 * The six races, one after the other, each a program of its own, and then one table.
 *
 *     npm run races -- [1 2 … 6] [--quiet] [--json]
 *
 * Real systems are started for them on this machine, in temporary folders, and stopped: see test/services. Exits 1 if a fix
 * has left anything wrong.
 */
import { fork } from "node:child_process";
import { once } from "node:events";
import { readdirSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { failuresOf } from "./common/stage.mjs";

const here = fileURLToPath(new URL(".", import.meta.url));
const races = readdirSync(here)
  .filter((folder) => /^\d-/.test(folder))
  .sort();

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { quiet: { type: "boolean", default: false }, json: { type: "boolean", default: false } },
});
const chosen = positionals.length === 0 ? races : races.filter((folder) => positionals.includes(folder[0]));
if (positionals.some((number) => !races.some((folder) => folder[0] === number))) {
  console.error(`usage: npm run races -- [${races.map((folder) => folder[0]).join(" ")}] [--quiet] [--json]`);
  process.exit(64);
}

/** @returns {Promise<{ result?: import("./common/stage.mjs").Result, code: number | null, folder: string }>} */
async function run(folder) {
  const output = values.json || values.quiet ? "pipe" : "inherit";
  const child = fork(`${here}${folder}/race.mjs`, { stdio: ["ignore", output, "inherit", "ipc"] });
  let told = "";
  child.stdout?.on("data", (chunk) => {
    told = (told + chunk).slice(-20_000);
  });
  let result;
  child.on("message", (message) => {
    result = message;
  });
  const [code] = await once(child, "close");
  if (code !== 0) console.error(`${told}${folder} ended with exit code ${code}`);
  return { result, code, folder };
}

const widthsOf = (rows) => rows[0].map((_, i) => Math.max(...rows.map((row) => row[i].length)));

function printTable(results) {
  const rows = [["race", "systems", "wrong outcomes", "protected by", "wrong", "of", ""]];
  for (const { number, title, systems, wrong, without, fixed } of results) {
    const cells = ({ how, wrong, of, note = "" }) => [how, `${wrong}`, `${of}`, note];
    rows.push([`${number} ${title}`, systems, wrong, ...cells(without)]);
    for (const fix of fixed) rows.push(["", "", "", ...cells(fix)]);
  }
  const widths = widthsOf(rows);
  const isNumber = (i) => i === 4 || i === 5;
  const line = (row) => row.map((cell, i) => (isNumber(i) ? cell.padStart(widths[i]) : cell.padEnd(widths[i])));
  console.log(`\n${rows.map((row) => line(row).join("  ").trimEnd()).join("\n")}\n`);
}

const ends = [];
for (const folder of chosen) ends.push(await run(folder));
const results = ends.flatMap(({ result }) => (result ? [result] : []));
if (values.json) console.log(JSON.stringify(results, null, 2));
else printTable(results);

const failed = ends.filter(({ code, result }) => code !== 0 || !result || failuresOf(result).length > 0);
if (failed.length > 0) {
  console.error(`FAILED: ${failed.map(({ folder }) => folder).join(", ")}`);
  process.exit(1);
}

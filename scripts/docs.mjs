// Writes the reference tables of the documentation from the code that they describe, between markers of the form
// <!-- begin:NAME --> and <!-- end:NAME -->. `--check` compares instead, and checks every relative link and anchor.
// Works on what is compiled: build first.
import { existsSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { dirname, join, relative, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { status } from "@grpc/grpc-js";
import { options } from "../dist/server/config/catalog.js";
import { refusalReasons } from "../dist/server/metrics/definitions.js";
import { ServerMetrics } from "../dist/server/metrics/server-metrics.js";
import { codeOf } from "../dist/server/rpc/errors.js";
import { version } from "../dist/server/version.js";
import { openapi } from "../dist/sidecar/api/openapi.js";

const root = fileURLToPath(new URL("..", import.meta.url));
const check = process.argv.includes("--check");

const markdown = (folder) =>
  readdirSync(join(root, folder), { recursive: true })
    .filter((file) => file.endsWith(".md") && !file.includes("node_modules"))
    .map((file) => join(root, folder, file));
const pages = [
  ...readdirSync(root)
    .filter((file) => file.endsWith(".md"))
    .map((file) => join(root, file)),
  ...markdown("docs"),
  join(root, "src/client/README.md"),
  join(root, "src/fence/README.md"),
];

const row = (cells) => `| ${cells.map((cell) => String(cell).replaceAll("|", "\\|")).join(" | ")} |\n`;
const table = (headings, rows) => row(headings) + row(headings.map(() => "---")) + rows.map(row).join("");

function optionsTable(wanted) {
  const rows = options.filter(wanted).map(({ key, flag, variable, fallback, description }) => {
    return [`\`${key}\``, `\`${flag}\`<br>\`${variable}\``, `\`${fallback}\``, description];
  });
  return table(["Key", "Flag and variable", "Default", "Meaning"], rows);
}

function reasonsTable() {
  const rows = refusalReasons.map((reason) => {
    const code = codeOf(reason);
    return [`[\`${reason}\`](#${reason.toLowerCase()})`, `\`${status[code]}\` (${code})`];
  });
  return table(["Reason", "gRPC status"], rows);
}

/** What a scrape shows, with the labels that occur. */
async function metricsTable() {
  const held = { holds: 0, heldExclusive: 0, heldShared: 0, heldSemaphore: 0, oldestHoldMs: 0 };
  const waits = { waiters: 0, oldestWaitMs: 0 };
  const leases = { leases: 0, leasesEnding: 0, requestsRemembered: 0 };
  const counts = { ...held, ...waits, ...leases, locks: 0, sessions: 0, lastToken: 0, timestamp: 0, halted: "" };
  const journal = { writtenBytes: 0, logBytes: 0, checkpointLagRecords: 0 };
  const snapshot = () => ({
    counts,
    journal,
    sessionsAttached: 0,
    commandsQueued: 0,
    journalUp: true,
    draining: false,
    leader: true,
    watchers: 0,
    limits: [{ limit: "limits.locksMax", used: 0, max: 1 }],
    certificates: [{ listener: "grpc", subject: "", notAfterMs: 0 }],
    resources: { storeFreeBytes: 0 },
  });
  const metrics = new ServerMetrics({ version: "0", store: "memory", snapshot, processMetrics: false });
  metrics.rpc("Acquire", "OK", 1);
  const text = await metrics.render();
  const help = new Map([...text.matchAll(/^# HELP (\S+) (.*)$/gm)].map(([, name, words]) => [name, words]));
  const rows = [...text.matchAll(/^# TYPE (\S+) (\S+)$/gm)].map(([, name, type]) => {
    const series = new RegExp(`^${name}(?:_bucket)?\\{([^}]*)\\}`, "m").exec(text)?.[1] ?? "";
    const labels = [...series.matchAll(/(\w+)="/g)].map(([, label]) => label).filter((label) => label !== "le");
    return [`\`${name}\``, type, labels.map((label) => `\`${label}\``).join(" "), help.get(name)];
  });
  return table(["Metric", "Type", "Labels", "Meaning"], rows);
}

const tables = {
  options: optionsTable((option) => option.path.length === 1),
  limits: optionsTable((option) => option.path.length > 1),
  reasons: reasonsTable(),
  metrics: await metricsTable(),
};

const problems = [];
const used = new Set();

function fill(path) {
  const before = readFileSync(path, "utf8");
  const after = before.replace(/(<!-- begin:(\w+) -->\n)[\s\S]*?(<!-- end:\2 -->)/g, (_, begin, name, end) => {
    used.add(name);
    if (tables[name] === undefined) throw new Error(`${relative(root, path)}: there is no table "${name}"`);
    return `${begin}\n${tables[name]}\n${end}`;
  });
  if (after === before) return;
  if (check) problems.push(`${relative(root, path)}: a table is not what the code says; run \`npm run docs\``);
  else writeFileSync(path, after);
}

/** A file that is made of the code as a whole. */
function write(path, text) {
  if (existsSync(path) && readFileSync(path, "utf8") === text) return;
  if (check) problems.push(`${relative(root, path)} is not what the code says; run \`npm run docs\``);
  else writeFileSync(path, text);
}

/** As GitHub makes them from headings. */
const slug = (heading) =>
  heading
    .toLowerCase()
    .replace(/[`*]/g, "")
    .replace(/[^\p{L}\p{N}\s_-]/gu, "")
    .trim()
    .replace(/\s/g, "-");

const withoutCode = (text) => text.replace(/^```[\s\S]*?^```/gm, "");

function anchors(path) {
  const text = withoutCode(readFileSync(path, "utf8"));
  const headings = [...text.matchAll(/^#{1,6} (.*)$/gm)].map(([, heading]) => slug(heading));
  return new Set([...headings, ...[...text.matchAll(/<a id="([^"]+)">/g)].map(([, id]) => id)]);
}

function checkLinks(path) {
  const text = withoutCode(readFileSync(path, "utf8")).replace(/`[^`\n]*`/g, "");
  for (const [, target] of text.matchAll(/\]\(([^)\s]+)\)/g)) {
    if (/^(https?|mailto):/.test(target)) continue;
    const [file, anchor] = target.split("#");
    const to = file === "" ? path : resolve(dirname(path), file);
    const where = `${relative(root, path)}: the link ${target}`;
    if (!existsSync(to)) problems.push(`${where} leads nowhere`);
    else if (anchor && statSync(to).isFile() && !anchors(to).has(anchor)) problems.push(`${where} names no heading`);
  }
}

for (const path of pages) fill(path);
write(join(root, "docs/openapi/sidecar.json"), `${JSON.stringify(openapi(version), null, 2)}\n`);
for (const name of Object.keys(tables)) if (!used.has(name)) problems.push(`no page shows the table "${name}"`);
for (const path of pages) checkLinks(path);
for (const problem of problems) console.error(problem);
if (problems.length > 0) process.exitCode = 1;

/** Prints the functions in which a process spent its time, from a CPU profile of Node's. `node profile.mjs FILE...` */
import { readFileSync } from "node:fs";
import { basename } from "node:path";
import { fileURLToPath } from "node:url";
import { percent, printTable } from "./report.mjs";

const TOP = 30;
const IDLE = new Set(["(idle)", "(program)"]);

/** Time by function: in itself, and with everything that it called. */
function times(profile) {
  const nodes = new Map(profile.nodes.map((node) => [node.id, node]));
  const selfUs = new Map();
  profile.samples.forEach((id, i) => {
    selfUs.set(id, (selfUs.get(id) ?? 0) + profile.timeDeltas[i]);
  });
  const functions = new Map();
  const visit = (node, above) => {
    const { functionName, url, lineNumber } = node.callFrame;
    const where = url === "" ? "" : `${shorten(url)}:${lineNumber + 1}`;
    const key = `${functionName || "(anonymous)"}  ${where}`;
    const entry = functions.get(key) ?? { name: functionName || "(anonymous)", where, selfUs: 0, totalUs: 0 };
    functions.set(key, entry);
    let totalUs = selfUs.get(node.id) ?? 0;
    entry.selfUs += totalUs;
    const path = new Set(above).add(key);
    for (const child of node.children ?? []) totalUs += visit(nodes.get(child), path);
    if (!above.has(key)) entry.totalUs += totalUs; // a recursive call is in its caller's time already
    return totalUs;
  };
  visit(profile.nodes[0], new Set());
  return [...functions.values()];
}

function shorten(url) {
  const path = url.startsWith("file:") ? fileURLToPath(url) : url;
  return path.replace(/^.*\/node_modules\//, "").replace(`${process.cwd()}/`, "");
}

export function printProfile(file) {
  const functions = times(JSON.parse(readFileSync(file, "utf8")));
  const allUs = functions.reduce((sum, f) => sum + f.selfUs, 0);
  const idleUs = functions.filter((f) => IDLE.has(f.name)).reduce((sum, f) => sum + f.selfUs, 0);
  const busyUs = allUs - idleUs;
  console.log(
    `\n${basename(file)}: busy ${percent(busyUs / allUs)} of ${(allUs / 1e6).toFixed(1)} s; shares of the busy time:`,
  );
  const ours = (f) => f.where !== "" && !f.where.startsWith("node:");
  const top = (by, wanted) =>
    printTable(
      ["itself", "with calls", ""],
      functions
        .filter((f) => !IDLE.has(f.name) && wanted(f))
        .sort((a, b) => b[by] - a[by])
        .slice(0, TOP)
        .map((f) => [percent(f.selfUs / busyUs), percent(f.totalUs / busyUs), `${f.name} ${f.where}`]),
      2,
    );
  console.log("most time in itself");
  top("selfUs", () => true);
  console.log("most time with calls, Node itself left out");
  top("totalUs", ours);
}

if (process.argv[1] === fileURLToPath(import.meta.url)) for (const file of process.argv.slice(2)) printProfile(file);

/**
 * The files of the console: a fixed table, read into memory when the server starts. What is not in it does not exist, so
 * no path leads anywhere else. They are open to everybody: what they show, they have to ask the API for.
 */
import { readdirSync, readFileSync } from "node:fs";
import { extname, join, relative, sep } from "node:path";
import { fileURLToPath } from "node:url";
import type { Answer } from "./answer.js";

const types: Readonly<Record<string, string>> = {
  ".html": "text/html; charset=utf-8",
  ".css": "text/css; charset=utf-8",
  ".js": "text/javascript; charset=utf-8",
  ".svg": "image/svg+xml",
};

/** Its own scripts, styles, pictures and API, in no frame, and nothing inline. */
const POLICY =
  "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
  "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'";

const headers = {
  "content-security-policy": POLICY,
  "x-frame-options": "DENY",
  "referrer-policy": "no-referrer",
  "cross-origin-resource-policy": "same-origin",
};

/** The paths of the console and what is there. Throws when its files are not where they belong. */
export function consoleAssets(): ReadonlyMap<string, Answer> {
  const folder = fileURLToPath(new URL("./console/", import.meta.url));
  const assets = new Map<string, Answer>();
  for (const entry of readdirSync(folder, { withFileTypes: true, recursive: true })) {
    const type = types[extname(entry.name)];
    if (!entry.isFile() || type === undefined) continue;
    const file = join(entry.parentPath, entry.name);
    const path = `/console/${relative(folder, file).split(sep).join("/")}`;
    assets.set(path, { status: 200, body: readFileSync(file), type, headers });
  }
  const page = assets.get("/console/index.html");
  if (page === undefined) throw new Error(`the files of the console are not in ${folder}`);
  assets.set("/console/", page);
  const redirect: Answer = { status: 302, body: "the console is at /console/\n", headers: { location: "/console/" } };
  for (const path of ["/", "/console"]) assets.set(path, redirect);
  return assets;
}

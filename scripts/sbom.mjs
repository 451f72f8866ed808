// Writes the software bill of materials (CycloneDX) of what runs in production: `npm run sbom -- FILE`, by default
// dist/sbom.json. It is npm's own, of a copy of the manifests that knows nothing of development, as npm gets the
// difference wrong. Needs no network and no node_modules.
import { spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { productionPaths } from "./production.mjs";

const root = fileURLToPath(new URL("..", import.meta.url));
const target = resolve(process.argv[2] ?? join(root, "dist/sbom.json"));
const read = (path) => JSON.parse(readFileSync(join(root, path), "utf8"));

const lock = read("package-lock.json");
const paths = productionPaths(lock);
const workspaces = paths.filter((path) => !path.includes("node_modules/"));
const production = ({ devDependencies: _, ...manifest }) => ({
  ...manifest,
  ...(manifest.workspaces ? { workspaces } : {}),
});

const folder = mkdtempSync(join(tmpdir(), "leasehold-sbom-"));
const write = (path, value) => {
  mkdirSync(dirname(join(folder, path)), { recursive: true });
  writeFileSync(join(folder, path), JSON.stringify(value));
};
try {
  write("package.json", production(read("package.json")));
  for (const path of workspaces) write(`${path}/package.json`, production(read(`${path}/package.json`)));
  const packages = Object.fromEntries(paths.map((path) => [path, lock.packages[path]]));
  write("package-lock.json", { ...lock, packages: { "": production(lock.packages[""]), ...packages } });
  const args = ["sbom", "--sbom-format", "cyclonedx", "--sbom-type", "application", "--package-lock-only"];
  const made = spawnSync("npm", args, { cwd: folder, encoding: "utf8", maxBuffer: 64 * 1_048_576 });
  if (made.status !== 0) throw new Error(`npm sbom: ${made.stderr}`);
  const bom = JSON.parse(made.stdout);
  bom.metadata.component.name = lock.name; // npm takes the folder's, and those of workspaces
  for (const component of bom.components) component.name = component["bom-ref"].replace(/@[^@]*$/, "");
  mkdirSync(dirname(target), { recursive: true });
  writeFileSync(target, `${JSON.stringify(bom, null, 2)}\n`);
  console.log(`${target}: ${bom.components.length} components`);
} finally {
  rmSync(folder, { recursive: true });
}

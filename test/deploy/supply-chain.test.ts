// What is installed, and that it is what it was: the lock file and the bill of materials. Without network.
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { productionPaths } from "../../scripts/production.mjs";
import { temporaryFolder } from "../e2e/support.js";
import { root } from "./support.js";

interface Entry {
  readonly version?: string;
  readonly integrity?: string;
  readonly resolved?: string;
  readonly link?: boolean;
  readonly optional?: boolean;
  readonly os?: readonly string[];
  readonly hasInstallScript?: boolean;
}

const json = (path: string) => JSON.parse(readFileSync(join(root, path), "utf8"));
const lock = json("package-lock.json") as { packages: Record<string, Entry> };
const manifest = json("package.json") as { allowScripts: object; dependencies: Record<string, string> };
const production = productionPaths(lock);

/** Packages that run in production, with what they bring. A new dependency must be worth raising it. */
const PACKAGES_MAX = 95;
const DIRECT_MAX = 14;

describe("the lock file", () => {
  const packages = Object.entries(lock.packages).filter(([path, { link }]) => path.includes("node_modules/") && !link);

  it("has a checksum of every package, but of those for other platforms, which this one never installs", () => {
    const without = packages.filter(([, { integrity }]) => !/^sha512-/.test(integrity ?? ""));
    for (const [path, { optional, os }] of without) {
      expect({ optional, os }, path).toEqual({ optional: true, os: [expect.any(String)] });
    }
    const missing = production.filter((path) => path.includes("node_modules/") && !lock.packages[path]?.link);
    for (const path of missing) expect(lock.packages[path]?.integrity, path).toMatch(/^sha512-/);
  });

  it("names no host: packages come from whichever registry is configured, and only from there", () => {
    const hosts = packages.filter(([, { resolved }]) => resolved !== undefined);
    expect(hosts.map(([path]) => path)).toEqual([]);
    const text = readFileSync(join(root, "package-lock.json"), "utf8");
    expect(text).not.toMatch(/"(git\+|git:|ssh:|file:|http:)/);
  });

  it("knows which packages may run a script when they are installed", () => {
    const scripted = packages.filter(([, { hasInstallScript }]) => hasInstallScript);
    const names = scripted.map(([path]) => path.replace(/^.*node_modules\//, ""));
    expect([...new Set(names)].sort()).toEqual(Object.keys(manifest.allowScripts).sort());
  });

  it("keeps what runs in production few", () => {
    expect(production.length).toBeLessThan(PACKAGES_MAX);
    expect(Object.keys(manifest.dependencies).length).toBeLessThanOrEqual(DIRECT_MAX);
  });
});

interface Tree {
  readonly version?: string;
  readonly dependencies?: Readonly<Record<string, Tree>>;
}

/** name@version of all that the dependencies of package.json need, by `npm ls`. */
function productionByNpm(): string[] {
  const args = ["ls", "--omit=dev", "--all", "--json", "--package-lock-only"];
  const tree = JSON.parse(execFileSync("npm", args, { cwd: root, encoding: "utf8" })) as Tree;
  // What is shown a second time, npm ls shows without what is below it.
  const below = new Map<string, Map<string, Tree>>();
  const remember = ({ dependencies = {} }: Tree): void => {
    for (const [name, child] of Object.entries(dependencies)) {
      const id = `${name}@${child.version}`;
      const known = below.get(id) ?? new Map<string, Tree>();
      below.set(id, known);
      for (const [childName, grandchild] of Object.entries(child.dependencies ?? {})) {
        known.set(`${childName}@${grandchild.version}`, grandchild);
      }
      remember(child);
    }
  };
  remember(tree);
  const found = new Set<string>();
  const add = (id: string): void => {
    if (found.has(id)) return;
    found.add(id);
    for (const child of below.get(id)?.keys() ?? []) add(child);
  };
  for (const name of Object.keys(manifest.dependencies)) add(`${name}@${tree.dependencies?.[name]?.version}`);
  return [...found].sort();
}

it("the bill of materials lists exactly what runs in production, with checksums", async () => {
  const path = join(await temporaryFolder(), "sbom.json");
  execFileSync(process.execPath, [join(root, "scripts/sbom.mjs"), path], { cwd: root });
  const bom = JSON.parse(readFileSync(path, "utf8")) as {
    bomFormat: string;
    metadata: { component: { name: string; version: string } };
    components: { name: string; version: string; purl: string; hashes?: { alg: string }[] }[];
  };
  expect(bom.bomFormat).toBe("CycloneDX");
  expect(bom.metadata.component).toMatchObject({ name: "leasehold", version: json("package.json").version });
  const listed = bom.components.map(({ name, version }) => `${name}@${version}`);
  expect([...new Set(listed)].sort()).toEqual(productionByNpm());
  for (const { name, purl, hashes } of bom.components) {
    expect(purl, name).toMatch(/^pkg:npm\//);
    if (!name.startsWith("@leasehold/")) expect(hashes?.[0]?.alg, name).toBe("SHA-512");
  }
});

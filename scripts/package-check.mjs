/**
 * Looks at the packages as their users get them: packed, and installed into an empty folder.
 *
 *     node scripts/package-check.mjs [--client FOLDER] [--fence FOLDER] [--root FOLDER]
 *
 * Needs a build. Prints one line for each thing that is so, and exits 1 at the first that is not.
 */
import { execFileSync } from "node:child_process";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

const repository = fileURLToPath(new URL("..", import.meta.url));
const { values } = parseArgs({
  options: {
    client: { type: "string", default: join(repository, "src/client") },
    fence: { type: "string", default: join(repository, "src/fence") },
    root: { type: "string", default: repository },
  },
});

/** What a server needs and a client must not bring along. */
const SERVER_ONLY = ["level", "classic-level", "pino", "pino-pretty", "zod", "prom-client", "commander", "yaml"];
const INSTALL = ["install", "--prefer-offline", "--no-audit", "--no-fund", "--no-package-lock"];

class Refused extends Error {}

function check(so, what) {
  if (!so) throw new Refused(what);
  console.log(`ok  ${what}`);
}

/** Runs a program to its end and returns what it printed. */
function run(what, command, args, cwd) {
  try {
    const env = { ...process.env, NODE_OPTIONS: "" };
    return execFileSync(command, args, { cwd, env, encoding: "utf8", stdio: ["ignore", "pipe", "pipe"] });
  } catch (error) {
    throw new Refused(`${what}:\n${error.stdout ?? ""}${error.stderr ?? ""}`);
  }
}
const node = (what, args, cwd) => run(what, process.execPath, args, cwd);
const tool = (path) => join(repository, "node_modules", path);

/** Packs a folder as `npm publish` would. The build is there already, so scripts are not run. */
function pack(folder, into) {
  const args = ["pack", "--ignore-scripts", "--json", "--pack-destination", into];
  const [{ filename, files, version }] = JSON.parse(run(`npm pack ${folder}`, "npm", args, folder));
  return { tarball: join(into, filename), files: files.map((file) => file.path), version };
}

/** An empty project with the given packages in it. */
function install(name, tarballs, into) {
  const folder = join(into, name);
  mkdirSync(folder);
  writeFileSync(join(folder, "package.json"), '{ "private": true }\n');
  run(`npm install of ${name}`, "npm", [...INSTALL, ...tarballs], folder);
  return folder;
}

/** Names of everything that is installed, at any depth. */
function installed(folder) {
  const found = new Set();
  const visit = (modules) => {
    for (const entry of existsSync(modules) ? readdirSync(modules) : []) {
      if (entry.startsWith(".")) continue;
      const scoped = entry.startsWith("@")
        ? readdirSync(join(modules, entry)).map((name) => `${entry}/${name}`)
        : [entry];
      for (const name of scoped) {
        found.add(name);
        visit(join(modules, name, "node_modules"));
      }
    }
  };
  visit(join(folder, "node_modules"));
  return found;
}

// ---------------------------------------------------------------------------------------------- the client

function checkClient(client, folder) {
  const unwanted = client.files.filter((file) => !/^(dist\/|package\.json$|README|LICENSE|CHANGELOG)/.test(file));
  check(unwanted.length === 0, `the client's tarball has nothing but dist and documents${listed(unwanted)}`);
  check(!client.files.some((file) => file.endsWith(".tsbuildinfo")), "the client's tarball has no build state");

  const modules = installed(folder);
  const brought = SERVER_ONLY.filter((name) => modules.has(name));
  check(brought.length === 0, `the client installs without ${SERVER_ONLY.join(", ")}${listed(brought)}`);
  console.log(`    it brings ${modules.size - 1} packages: ${[...modules].sort().join(", ")}`);
  checkLoading(folder);
  checkTypes("the client", client, CONSUMER, folder);
}

function checkLoading(folder) {
  const uses = 'if (typeof client.connect !== "function") throw new Error("exports " + Object.keys(client));\n';
  writeFileSync(join(folder, "use.cjs"), `const client = require("@leasehold/client");\n${uses}`);
  writeFileSync(join(folder, "use.mjs"), `import * as client from "@leasehold/client";\n${uses}`);
  node("require() of the client", ["use.cjs"], folder);
  check(true, "require() of the client gives connect");
  node("import of the client", ["use.mjs"], folder);
  check(true, "import of the client gives connect");
}

const CONSUMER = `import { connect, LeaseholdError, type Lock } from "@leasehold/client";

export async function once(address: string, work: (signal: AbortSignal, token: number) => Promise<void>): Promise<void> {
  const client = await connect(address);
  try {
    await client.withLock("cron/nightly", { wait: "5s" }, (lock: Lock) => work(lock.signal, lock.token));
  } catch (error) {
    if (!LeaseholdError.is(error, "BUSY")) throw error;
    const owner: string | undefined = error.busy?.holders[0]?.owner;
    console.log(owner);
  } finally {
    await client.close();
  }
}
`;

/** Compiles a program that uses the package, as a strict TypeScript user would, and lets the package's types be judged. */
function checkTypes(what, { tarball }, program, folder) {
  // What a TypeScript user has installed anyway.
  mkdirSync(join(folder, "node_modules/@types"), { recursive: true });
  const nodeTypes = join(folder, "node_modules/@types/node");
  if (!existsSync(nodeTypes)) symlinkSync(tool("@types/node"), nodeTypes);
  writeFileSync(join(folder, "use.mts"), program);
  const compilerOptions = {
    target: "ES2022",
    lib: ["ES2023", "ESNext.Disposable"],
    module: "NodeNext",
    types: ["node"],
    strict: true,
    exactOptionalPropertyTypes: true,
    skipLibCheck: false,
    noEmit: true,
  };
  writeFileSync(join(folder, "tsconfig.json"), JSON.stringify({ compilerOptions, files: ["use.mts"] }));
  const compile = [tool("typescript/bin/tsc"), "-p", "."];
  node(`a TypeScript program that uses ${what} does not compile`, compile, folder);
  check(true, `a TypeScript program that uses ${what} compiles with skipLibCheck off`);

  const attw = [tool("@arethetypeswrong/cli/dist/index.js"), "--profile", "esm-only", "--no-color", tarball];
  node(`arethetypeswrong, ${what}`, [...attw, "--exclude-entrypoints", "./migrations/*"], folder);
  check(true, `arethetypeswrong finds nothing wrong with the types of ${what}`);
  lint(what, tarball, folder);
}

function lint(what, tarball, folder) {
  node(`publint of ${what}`, [tool("publint/src/cli.js"), "run", tarball, "--strict"], folder);
  check(true, `publint finds nothing wrong with ${what}`);
}

// ---------------------------------------------------------------------------------------------- the fence kit

const FENCING = `import { FenceError, type Fence } from "@leasehold/fence";
import { connect } from "@leasehold/client";
import { sqliteFence } from "@leasehold/fence/sqlite";
import { fencedFetch } from "@leasehold/fence/http";

export async function work(address: string, fence: Fence, db: Parameters<typeof sqliteFence>[0]): Promise<void> {
  const client = await connect(address);
  const rows = sqliteFence(db);
  await client.withLock("orders/42", { fence }, async (lock) => {
    rows.tx(lock, () => db.prepare("update orders set state = 'paid'").run());
    await fencedFetch(lock)("http://localhost/orders/42", { method: "PUT" });
  }).catch((error: unknown) => {
    if (!FenceError.is(error, "STALE_TOKEN")) throw error;
    console.log(error.floor);
  });
}
`;

/** Entry points that are code, as "@leasehold/fence" or "@leasehold/fence/sqlite". */
function entryPoints(folder) {
  const { name, exports } = JSON.parse(readFileSync(join(folder, "package.json"), "utf8"));
  const code = Object.keys(exports).filter((path) => !path.includes("*") && !path.endsWith(".json"));
  return code.map((path) => name + path.slice(1));
}

function checkFence(fence, folder, source) {
  const unwanted = fence.files.filter((file) => !/^(dist\/|migrations\/|package\.json$|README|LICENSE)/.test(file));
  check(
    unwanted.length === 0,
    `the fence kit's tarball has nothing but dist, migrations and documents${listed(unwanted)}`,
  );
  const { dependencies, peerDependencies } = JSON.parse(readFileSync(join(source, "package.json"), "utf8"));
  check(!dependencies && !peerDependencies, "the fence kit depends on nothing");

  const points = entryPoints(source);
  const imports = points.map((point, i) => `import * as m${i} from "${point}";\nawait m${i};\n`).join("");
  writeFileSync(join(folder, "use.mjs"), imports);
  writeFileSync(join(folder, "use.cjs"), points.map((point) => `require("${point}");\n`).join(""));
  node("import of the fence kit", ["use.mjs"], folder);
  node("require() of the fence kit", ["use.cjs"], folder);
  check(true, `import and require() of the fence kit's ${points.length} entry points work without any driver`);
  checkTypes("the fence kit", fence, FENCING, folder);
}

// ---------------------------------------------------------------------------------------------- the root package

function checkRoot(root, folder) {
  const has = (pattern) => root.files.some((file) => pattern.test(file));
  check(
    has(/^dist\/cli\/main\.js$/) && has(/^dist\/server\/index\.js$/),
    "the root's tarball has the compiled server and CLI",
  );
  check(has(/^proto\/leasehold\/v1\/lock\.proto$/), "the root's tarball has the protocol");
  const unwanted = root.files.filter((file) => !/^(dist\/|proto\/|package\.json$|README|LICENSE|CHANGELOG)/.test(file));
  check(unwanted.length === 0, `the root's tarball has nothing but dist, proto and documents${listed(unwanted)}`);
  const tests = root.files.filter((file) => /(^|\/)test\/|\.test\.|\.tsbuildinfo$/.test(file));
  check(tests.length === 0, `the root's tarball has no tests and no build state${listed(tests)}`);

  const npx = (args) =>
    run(`npx leasehold ${args.join(" ")}`, "npx", ["--no-install", "leasehold", ...args], folder).trim();
  const printed = npx(["--version"]);
  check(
    printed === root.version,
    `npx leasehold --version prints ${root.version}${printed === root.version ? "" : `, not ${printed}`}`,
  );
  npx(["serve", "--check-config"]);
  check(true, "npx leasehold serve --check-config is content with the defaults");

  const uses = 'if (typeof leasehold.connect !== "function") throw new Error("exports " + Object.keys(leasehold));\n';
  writeFileSync(
    join(folder, "use.mjs"),
    `import * as leasehold from "leasehold";\nimport "leasehold/server";\n${uses}`,
  );
  node("import of leasehold", ["use.mjs"], folder);
  check(true, "import of leasehold gives connect");
  lint("the root", root.tarball, folder);
}

const listed = (items) => (items.length === 0 ? "" : `; found: ${items.join(", ")}`);

const temporary = mkdtempSync(join(tmpdir(), "leasehold-package-"));
try {
  for (const built of [join(values.client, "dist/index.js"), join(values.root, "dist/cli/main.js")]) {
    if (!existsSync(built)) throw new Refused(`${built} is missing: run \`npm run build\` first`);
  }
  const client = pack(values.client, temporary);
  checkClient(client, install("client", [client.tarball], temporary));
  const fence = pack(values.fence, temporary);
  checkFence(fence, install("fence", [fence.tarball, client.tarball], temporary), values.fence);
  const root = pack(values.root, temporary);
  const { dependencies } = JSON.parse(readFileSync(join(values.root, "package.json"), "utf8"));
  check(
    dependencies["@leasehold/client"]?.endsWith(client.version),
    `the root asks for the client's version ${client.version}`,
  );
  checkRoot(root, install("root", [root.tarball, client.tarball], temporary));
} catch (error) {
  if (!(error instanceof Refused)) throw error;
  console.error(`NOT ok  ${error.message}`);
  process.exitCode = 1;
} finally {
  rmSync(temporary, { recursive: true, force: true });
}

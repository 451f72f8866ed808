// @ts-check
/**
 * Finds the servers that the tests start, and installs what is missing where that is possible without asking anybody:
 * as root on Debian and its descendants, which is what CI runs on. Elsewhere the error says what to install.
 *
 * Several test processes find the same server missing at the same time, so the installation is one shell process under
 * a lock (flock): the second one to get it finds nothing left to do. Debian starts a daemon when it installs it, on its
 * well-known port, unless /usr/sbin/policy-rc.d says no: it is put there for the time of the installation.
 */
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { accessSync, constants, existsSync, readdirSync } from "node:fs";
import { delimiter, join } from "node:path";

/**
 * @typedef {object} Tool
 * @property {string[]} [names] under which it is known elsewhere, the first found is taken
 * @property {string[]} [places] looked into before the PATH; `*` stands for a version, the highest is taken
 * @property {string} [imports] modules that this Python must have
 * @property {string} debian
 * @property {string} fedora
 * @property {string} brew
 */

/** @type {Tool} */
const postgresql = {
  // On the PATH Debian has only wrappers, and only for clients.
  places: ["/usr/lib/postgresql/*/bin", "/usr/local/opt/postgresql@*/bin", "/opt/homebrew/opt/postgresql@*/bin"],
  debian: "postgresql",
  fedora: "postgresql-server",
  brew: "postgresql@17",
};
/** @type {Tool} */
const mariadb = { debian: "mariadb-server", fedora: "mariadb-server", brew: "mariadb" };
/** @type {Tool} */
const rabbitmq = {
  // What is on the PATH in Debian is a wrapper that changes to another user, and logs elsewhere.
  places: ["/usr/lib/rabbitmq/bin"],
  debian: "rabbitmq-server",
  fedora: "rabbitmq-server",
  brew: "rabbitmq",
};

/** @type {Tool} */
const prometheus = { debian: "prometheus", fedora: "prometheus", brew: "prometheus" };

/** @satisfies {Record<string, Tool>} */
const TOOLS = {
  postgres: postgresql,
  mariadbd: mariadb,
  "mariadb-install-db": mariadb,
  "redis-server": {
    names: ["redis-server", "valkey-server"],
    debian: "redis-server",
    fedora: "valkey",
    brew: "redis",
  },
  "rabbitmq-server": rabbitmq,
  epmd: { ...rabbitmq, places: ["/usr/lib/erlang/bin", "/usr/local/lib/erlang/bin"] },
  etcd: { debian: "etcd-server", fedora: "etcd", brew: "etcd" },
  kcat: { names: ["kcat", "kafkacat"], debian: "kcat", fedora: "kafkacat", brew: "kcat" },
  faketime: { debian: "faketime", fedora: "libfaketime", brew: "libfaketime" },
  "python3-grpc": {
    names: ["python3"],
    places: ["/usr/bin"], // what is first on the PATH may not see the system's modules
    imports: "grpc_tools.protoc, grpc",
    debian: "python3-grpc-tools",
    fedora: "python3-grpcio-tools",
    brew: "grpcio-tools",
  },
  openssl: { debian: "openssl", fedora: "openssl", brew: "openssl" },
  prometheus,
  promtool: prometheus,
  chromium: {
    names: ["chromium", "chromium-browser", "google-chrome"],
    debian: "chromium",
    fedora: "chromium",
    brew: "chromium",
  },
};

/** @typedef {keyof typeof TOOLS} ToolName */

/**
 * What `need` has to know about a machine. Tests make up others.
 *
 * @typedef {object} Machine
 * @property {string[]} path the folders of the PATH
 * @property {boolean} debian
 * @property {boolean} root
 * @property {string} policyFile which forbids to start what is installed
 * @property {string} lockFile
 * @property {NodeJS.ProcessEnv} env of apt-get
 * @property {boolean} ownPlaces whether to look outside of the PATH, too
 * @property {(line: string) => void} say
 */

/** @returns {Machine} */
export function thisMachine() {
  const path = (process.env.PATH ?? "").split(delimiter).filter(Boolean);
  return {
    path: [...path, "/usr/sbin", "/usr/local/sbin"], // where servers are, and which a user's PATH often lacks
    debian: existsSync("/etc/debian_version"),
    root: process.getuid?.() === 0,
    policyFile: "/usr/sbin/policy-rc.d",
    lockFile: "/var/lock/leasehold-test-services",
    env: process.env,
    ownPlaces: true,
    say: (line) => void process.stderr.write(`${line}\n`),
  };
}

/** Whether the tests that need services are to be skipped: LEASEHOLD_TEST_SERVICES=skip. */
export function servicesSkipped() {
  return process.env.LEASEHOLD_TEST_SERVICES === "skip";
}

/** @param {string} pattern a folder, with at most one `*` */
function expand(pattern) {
  const star = pattern.indexOf("*");
  if (star === -1) return [pattern];
  const parent = pattern.slice(0, pattern.lastIndexOf("/", star));
  const prefix = pattern.slice(parent.length + 1, star);
  const rest = pattern.slice(star + 1);
  if (!existsSync(parent)) return [];
  const versions = readdirSync(parent)
    .filter((name) => name.startsWith(prefix) && /^[\d.]+$/.test(name.slice(prefix.length)))
    .sort((a, b) => Number.parseFloat(b.slice(prefix.length)) - Number.parseFloat(a.slice(prefix.length)));
  return versions.map((name) => join(parent, name) + rest);
}

/** @param {string} file */
function isExecutable(file) {
  try {
    accessSync(file, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

/**
 * @param {ToolName} name
 * @param {Machine} machine
 */
function find(name, machine) {
  /** @type {Tool} */
  const tool = TOOLS[name];
  const places = machine.ownPlaces ? (tool.places ?? []).flatMap(expand) : [];
  const files = (tool.names ?? [name]).flatMap((each) => [...places, ...machine.path].map((dir) => join(dir, each)));
  return files.find((file) => isExecutable(file) && (tool.imports === undefined || canImport(file, tool.imports)));
}

/**
 * @param {string} python
 * @param {string} modules
 */
function canImport(python, modules) {
  return spawnSync(python, ["-c", `import ${modules}`], { stdio: "ignore" }).status === 0;
}

/** $1 the file of the policy, $2 the package. */
const INSTALL = `
set -eu
export DEBIAN_FRONTEND=noninteractive
# Another process may have installed it while this one waited for the lock.
if [ "$(dpkg-query -W -f '\${db:Status-Status}' "$2" 2>/dev/null)" = installed ]; then exit 0; fi
if [ ! -e "$1" ]; then
  trap 'rm -f "$1"' EXIT
  trap 'exit 1' HUP INT TERM
  printf '#!/bin/sh\\nexit 101\\n' >"$1"
  chmod 755 "$1"
fi
# Somebody else's apt-get may run, such as the machine's daily updates: wait for it.
apt-get -q -o DPkg::Lock::Timeout=300 update
apt-get -q -y -o DPkg::Lock::Timeout=300 install --no-install-recommends "$2"
`;

/**
 * @param {string} debianPackage
 * @param {Machine} machine
 */
async function install(debianPackage, { policyFile, lockFile, env }) {
  const args = [lockFile, "sh", "-c", INSTALL, "sh", policyFile, debianPackage];
  const child = spawn("flock", args, { env, stdio: ["ignore", "pipe", "pipe"] });
  let log = "";
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding("utf8").on("data", (chunk) => {
      log = (log + chunk).slice(-2_000);
    });
  }
  const [code, signal] = await once(child, "close");
  return code === 0 ? undefined : `${code ?? signal}: ${log.trim()}`;
}

/** @type {Map<string, Promise<void>>} the packages that this process is installing, or has tried to */
const installations = new Map();

/**
 * @param {ToolName} name
 * @param {Machine} machine
 */
async function installWithRetry(name, machine) {
  const { debian } = TOOLS[name];
  machine.say(`installing ${debian} (apt-get) because ${name} is not on the PATH`);
  let failure = await install(debian, machine);
  if (failure !== undefined) {
    machine.say(`apt-get failed, trying once more (${failure.split("\n").at(-1)})`); // a mirror in the midst of an update
    failure = await install(debian, machine);
  }
  if (failure !== undefined) throw new Error(`apt-get could not install ${debian}: ${failure}\n${advice(name)}`);
  machine.say(`installed ${debian}`);
}

/** @param {ToolName} name */
function advice(name) {
  const { debian, fedora, brew } = TOOLS[name];
  return (
    `Install it: apt-get install ${debian} (Debian, Ubuntu), dnf install ${fedora} (Fedora), brew install ${brew} ` +
    "(macOS); or set LEASEHOLD_TEST_SERVICES=skip to leave out the tests that need such services."
  );
}

/**
 * Where a program is; installs its package if it is missing, and this is Debian, and we are root.
 *
 * @param {ToolName} name
 * @param {Machine} [machine]
 * @returns {Promise<string>} its absolute path
 * @throws {Error} which says what to install
 * @example
 * const redisServer = await need("redis-server");
 */
export async function need(name, machine = thisMachine()) {
  const found = find(name, machine);
  if (found !== undefined) return found;
  if (!machine.debian || !machine.root) throw new Error(`${name} is not on the PATH. ${advice(name)}`);
  const key = `${machine.lockFile} ${TOOLS[name].debian}`;
  const installation = installations.get(key) ?? installWithRetry(name, machine);
  installations.set(key, installation);
  await installation;
  const installed = find(name, machine);
  if (installed === undefined) throw new Error(`${TOOLS[name].debian} is installed, but there is no ${name} in it`);
  return installed;
}

/** What each service is made of. @satisfies {Record<string, ToolName[]>} */
const SERVICES = {
  postgres: /** @type {const} */ (["postgres"]),
  mariadb: /** @type {const} */ (["mariadbd", "mariadb-install-db"]),
  redis: /** @type {const} */ (["redis-server"]),
  rabbitmq: /** @type {const} */ (["rabbitmq-server", "epmd"]),
  etcd: /** @type {const} */ (["etcd"]),
  kafka: /** @type {const} */ (["kcat"]),
  faketime: /** @type {const} */ (["faketime"]),
  "python-grpc": /** @type {const} */ (["python3-grpc"]),
  openssl: /** @type {const} */ (["openssl"]),
  prometheus: /** @type {const} */ (["prometheus", "promtool"]),
  chromium: /** @type {const} */ (["chromium"]),
};

/** @typedef {keyof typeof SERVICES} ServiceName */

/**
 * Sees to it that everything for these services is there.
 *
 * @param {readonly ServiceName[]} services
 */
export async function needServices(services) {
  for (const service of services) for (const name of SERVICES[service]) await need(name);
}

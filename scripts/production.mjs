// What the server needs at run time, by the lock file: the closure of the dependencies of the manifests, without those
// for development. (`npm sbom --omit dev` leaves out whatever a development dependency needs as well.)

/**
 * Paths in the lock file, as "node_modules/pino", sorted; of workspaces both the link and the folder.
 *
 * @param {{ packages: Record<string, LockEntry> }} lock
 * @typedef {{ link?: boolean, resolved?: string, dependencies?: Record<string, string>,
 *   optionalDependencies?: Record<string, string>, peerDependencies?: Record<string, string>,
 *   peerDependenciesMeta?: Record<string, { optional?: boolean }> }} LockEntry
 */
export function productionPaths(lock) {
  /** @type {Set<string>} */
  const found = new Set();
  const open = [""];
  for (let path = open.pop(); path !== undefined; path = open.pop()) {
    const entry = lock.packages[path];
    if (entry === undefined) throw new Error(`the lock file lacks ${path}`);
    if (entry.link && entry.resolved !== undefined) open.push(add(found, entry.resolved));
    for (const [name, must] of needsOf(entry)) {
      const needed = resolve(lock, path, name);
      if (needed === undefined && must)
        throw new Error(`the lock file lacks ${name}, which ${path || "the root"} needs`);
      if (needed !== undefined && !found.has(needed)) open.push(add(found, needed));
    }
  }
  return [...found].sort();
}

/** @param {Set<string>} set @param {string} value */
function add(set, value) {
  set.add(value);
  return value;
}

/** @param {LockEntry} entry @returns {[name: string, must: boolean][]} */
function needsOf({ dependencies = {}, optionalDependencies = {}, peerDependencies = {}, peerDependenciesMeta = {} }) {
  const peers = Object.keys(peerDependencies).filter((name) => !peerDependenciesMeta[name]?.optional);
  return [
    ...[...Object.keys(dependencies), ...peers].map((name) => /** @type {[string, boolean]} */ ([name, true])),
    ...Object.keys(optionalDependencies).map((name) => /** @type {[string, boolean]} */ ([name, false])),
  ];
}

/**
 * As Node looks for it: in the node_modules of each folder on the way up.
 *
 * @param {{ packages: Record<string, unknown> }} lock @param {string} from @param {string} name
 */
function resolve(lock, from, name) {
  for (let folder = from; ; folder = folder.includes("/") ? folder.slice(0, folder.lastIndexOf("/")) : "") {
    const path = folder === "" ? `node_modules/${name}` : `${folder}/node_modules/${name}`;
    if (lock.packages[path] !== undefined) return path;
    if (folder === "") return undefined;
  }
}

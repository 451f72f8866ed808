// @ts-check
/**
 * PostgreSQL: a primary, and if wanted a replica that streams from it. Commits are synced to disk, as in production:
 * what is tested with it is durability, too.
 */
import { readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { need } from "./packages.mjs";
import { onFreePorts } from "./ports.mjs";
import { isAlive, removeFolder, run, ServerProcess, temporaryFolder, until } from "./processes.mjs";

/** It refuses to run as root; its package has made a user for it. */
async function serverUser() {
  if (process.getuid?.() !== 0) return undefined;
  const id = async (/** @type {string} */ flag) => Number(await run(["id", flag, "postgres"]));
  return { uid: await id("-u"), gid: await id("-g") };
}

/** @typedef {{ uid: number, gid: number } | undefined} User */

/**
 * Its processes: those that serve connections are not in its process group, they are sessions of their own.
 *
 * @param {number} pid
 */
async function children(pid) {
  let list = "";
  try {
    list = readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8");
  } catch {
    list = await run(["pgrep", "-P", String(pid)]).catch(() => ""); // no Linux; it fails if there are none
  }
  return list.split(/\s+/).filter(Boolean).map(Number);
}

/**
 * As in a power cut: when this has resolved, none of its processes can commit or answer any more. Killed alone, the main
 * process would leave the others to finish what they are at, and a new one would refuse to start beside them.
 *
 * @param {ServerProcess} server
 */
async function kill9(server) {
  if (!server.running) return;
  server.signal("SIGSTOP"); // it starts no further ones
  const pids = await children(server.pid);
  for (const pid of pids) if (isAlive(pid)) process.kill(pid, "SIGKILL");
  await server.kill9();
  await until(() => !pids.some(isAlive), { what: "the end of PostgreSQL's processes" });
}

/**
 * It keeps a few bytes of System V shared memory, to find out whether others use its folder. Only its own end removes
 * them; after kill9() we do.
 *
 * @param {string} data
 */
async function removeSharedMemory(data) {
  try {
    const [, id = ""] = (readFileSync(join(data, "postmaster.pid"), "utf8").split("\n")[6] ?? "").trim().split(/\s+/);
    if (/^\d+$/.test(id)) await run(["ipcrm", "-m", id]);
  } catch {
    // it has ended in order, and has removed both
  }
}

/**
 * @param {{ name: string, folder: string, port: number, bin: string, user: User, settings: Record<string, string> }} spec
 */
function startServer({ name, folder, port, bin, user, settings }) {
  const all = {
    listen_addresses: "127.0.0.1",
    port: String(port),
    unix_socket_directories: folder, // the default is shared, and belongs to another user
    dynamic_shared_memory_type: "mmap", // in its folder: nothing is left in /dev/shm after kill -9
    max_connections: "200",
    ...settings,
  };
  return ServerProcess.start({
    name,
    folder,
    user,
    command: [
      join(bin, "postgres"),
      ...["-D", join(folder, "data")],
      ...Object.entries(all).flatMap(([key, value]) => ["-c", `${key}=${value}`]),
    ],
    ready: (log) => /ready to accept (read-only )?connections/.test(log),
    stopSignal: "SIGINT", // "fast": by SIGTERM it would wait until its clients have gone
    endSignal: "SIGQUIT", // "immediate": no checkpoint, but its shared memory is freed
  });
}

/**
 * @param {ServerProcess} server
 * @param {{ folder: string, port: number, bin: string }} at
 */
function handle(server, { folder, port, bin }) {
  const url = `postgres://postgres@127.0.0.1:${port}/postgres`;
  const stop = async () => {
    await server.end();
    await removeSharedMemory(join(folder, "data"));
    await removeFolder(folder);
  };
  return {
    host: "127.0.0.1",
    port,
    user: "postgres",
    database: "postgres",
    url,
    get pid() {
      return server.pid;
    },
    get log() {
      return server.log;
    },
    /**
     * Runs statements without a driver.
     *
     * @param {string} sql
     * @returns {Promise<string>} rows as lines, fields separated by `|`
     */
    psql: async (sql) => {
      const flags = ["--no-psqlrc", "--quiet", "--no-align", "--tuples-only", "--set", "ON_ERROR_STOP=1"];
      return (await run([join(bin, "psql"), ...flags, url], { input: sql })).trim();
    },
    /** `kill -9` of all its processes, as in a power cut. */
    kill9: () => kill9(server),
    /** Starts it again at the same port, also after kill9(). */
    restart: () => server.restart(),
    stop,
    [Symbol.asyncDispose]: stop,
  };
}

/** @typedef {ReturnType<typeof handle>} PostgresServer */

/**
 * @param {number} port
 * @param {string} bin
 * @param {Record<string, string>} settings
 */
async function startPrimary(port, bin, settings) {
  const user = await serverUser();
  const folder = temporaryFolder("postgres", user);
  // --no-sync: what a power cut could take is only the empty database.
  const flags = ["-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync"];
  await run([join(bin, "initdb"), "-D", join(folder, "data"), ...flags], { user });
  const server = await startServer({ name: "postgres", folder, port, bin, user, settings });
  return handle(server, { folder, port, bin });
}

/**
 * @param {PostgresServer} primary
 * @param {number} port
 * @param {string} bin
 * @param {Record<string, string>} settings
 */
async function startReplica(primary, port, bin, settings) {
  const user = await serverUser();
  const folder = temporaryFolder("replica", user);
  const data = join(folder, "data");
  const from = `host=127.0.0.1 port=${primary.port} user=postgres application_name=replica`;
  // -R writes what makes it a standby of that primary; -c fast: do not spread the checkpoint over minutes.
  const flags = ["-R", "-X", "stream", "-c", "fast", "--no-sync", "--no-manifest"];
  await run([join(bin, "pg_basebackup"), "-d", from, "-D", data, ...flags], { user });
  const server = await startServer({ name: "postgres replica", folder, port, bin, user, settings });
  const streaming = (/** @type {string} */ log) => log.includes("started streaming WAL");
  await until(() => streaming(server.log), { what: "the replica's stream from its primary" });
  const replica = handle(server, { folder, port, bin });
  return Object.assign(replica, {
    /**
     * From now on it receives, but shows nothing new: reads lag behind until resume(). A pause is only a request until
     * the record at hand is replayed, so this waits until it has come into force.
     */
    pause: async () => {
      await replica.psql("select pg_wal_replay_pause()");
      const paused = async () => (await replica.psql("select pg_get_wal_replay_pause_state()")) === "paused";
      await until(paused, { what: "the pause of the replica" });
    },
    resume: async () => void (await replica.psql("select pg_wal_replay_resume()")),
  });
}

/** @typedef {Awaited<ReturnType<typeof startReplica>>} PostgresReplica */

/**
 * Starts PostgreSQL on a free port of 127.0.0.1, for the user `postgres` without password.
 *
 * @param {{ replica?: boolean | undefined, settings?: Record<string, string> | undefined }} [options] settings as in
 *   postgresql.conf, for both servers
 * @returns {Promise<PostgresServer & { replica: PostgresReplica | undefined }>}
 * @example
 * const postgres = await startPostgres({ replica: true });
 * await postgres.replica?.pause();
 * await postgres.psql("create table t (id int)");
 * await postgres.stop();
 */
export async function startPostgres({ replica, settings = {} } = {}) {
  const bin = dirname(await need("postgres"));
  const primary = await onFreePorts(1, (port) => startPrimary(/** @type {number} */ (port), bin, settings));
  try {
    const follower = replica
      ? await onFreePorts(1, (port) => startReplica(primary, /** @type {number} */ (port), bin, settings))
      : undefined;
    const stopPrimary = primary.stop;
    const stop = async () => {
      await follower?.stop();
      await stopPrimary();
    };
    const both = { replica: follower, stop, [Symbol.asyncDispose]: stop };
    return Object.assign(primary, both);
  } catch (error) {
    await primary.stop();
    throw error;
  }
}

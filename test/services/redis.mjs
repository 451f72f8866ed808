// @ts-check
/** Redis (or Valkey): one server, a server and its replica, or a cluster of one node that owns all slots. */
import { connect } from "node:net";
import { need } from "./packages.mjs";
import { onFreePorts } from "./ports.mjs";
import { removeFolder, ServerProcess, temporaryFolder, until } from "./processes.mjs";

/**
 * One command without a driver: examples and start-up need no more than this.
 *
 * @param {number} port
 * @param {string} command as one would type it; for replies that are a line or one text
 * @returns {Promise<string>} the raw reply
 */
export function redisCommand(port, command) {
  return new Promise((resolve, reject) => {
    const socket = connect(port, "127.0.0.1");
    let reply = "";
    socket.setEncoding("utf8").setTimeout(10_000, () => socket.destroy(new Error(`no reply to ${command}`)));
    socket.on("error", reject).on("close", () => reject(new Error(`no whole reply to ${command}`)));
    socket.on("data", (chunk) => {
      reply += chunk;
      const [, bytes] = /^\$(\d+)\r\n/.exec(reply) ?? [];
      const whole = bytes === undefined ? reply.endsWith("\r\n") : reply.length >= Number(bytes) + bytes.length + 5;
      if (!whole) return;
      if (reply.startsWith("-")) reject(new Error(`${command}: ${reply.trim()}`));
      else resolve(reply);
      socket.destroy();
    });
    socket.write(`${command}\r\n`);
  });
}

/**
 * @typedef {object} RedisOptions
 * @property {boolean | undefined} [replica]
 * @property {boolean | undefined} [appendonly] durable: every command is on disk before its reply
 * @property {boolean | undefined} [cluster] in cluster mode, this one node owns all slots
 * @property {Record<string, string> | undefined} [settings] as in redis.conf
 */

/**
 * In cluster mode it refuses commands for its first 2 s, lest it has missed something: there is no setting for that.
 *
 * @param {number} port
 */
function clusterComplete(port) {
  const complete = async () => (await redisCommand(port, "CLUSTER INFO")).includes("cluster_state:ok");
  return until(complete, { what: "the cluster of Redis complete" });
}

/**
 * @param {string} name
 * @param {number[]} ports one, and one for the cluster bus
 * @param {Record<string, string>} settings
 */
async function startOne(name, [port = 0, busPort = 0], settings) {
  const folder = temporaryFolder(name);
  const clustered = settings["cluster-enabled"] === "yes";
  const all = {
    port: String(port),
    bind: "127.0.0.1",
    dir: folder,
    save: "", // no snapshots
    daemonize: "no",
    ...(clustered
      ? {
          "cluster-port": String(busPort), // else port + 10000, which somebody may have
          "cluster-announce-ip": "127.0.0.1", // alone it has not learned its address, and would tell clients ""
        }
      : {}),
    ...settings,
  };
  const server = await ServerProcess.start({
    name,
    folder,
    command: [await need("redis-server"), ...Object.entries(all).flatMap(([key, value]) => [`--${key}`, value])],
    ready: (log) => log.includes("Ready to accept connections"),
    endSignal: "SIGKILL", // its folder is all that it leaves
  });
  const stop = async () => {
    await server.end();
    await removeFolder(folder);
  };
  return {
    host: "127.0.0.1",
    port,
    url: `redis://127.0.0.1:${port}`,
    /** Where its files are, such as the append-only ones. */
    folder,
    get pid() {
      return server.pid;
    },
    get log() {
      return server.log;
    },
    /** @param {string} command */
    command: (command) => redisCommand(port, command),
    kill9: () => server.kill9(),
    /** Starts it again at the same port, also after kill9(). */
    restart: async () => {
      await server.restart();
      if (clustered) await clusterComplete(port);
    },
    /** It answers nothing and reads nothing until resume(); its connections stay open. */
    pause: () => server.signal("SIGSTOP"),
    resume: () => server.signal("SIGCONT"),
    stop,
    [Symbol.asyncDispose]: stop,
  };
}

/** @typedef {Awaited<ReturnType<typeof startOne>>} RedisServer */

/**
 * @param {RedisServer} primary
 * @returns {Promise<RedisServer>} in sync with it
 */
async function startReplica(primary) {
  const replica = await onFreePorts(2, (...ports) =>
    startOne("redis-replica", ports, { replicaof: `127.0.0.1 ${primary.port}` }),
  );
  const inSync = async () => (await replica.command("INFO replication")).includes("master_link_status:up");
  await until(inSync, { what: "the replica of Redis in sync" });
  return replica;
}

/**
 * Starts Redis on a free port of 127.0.0.1, without persistence unless `appendonly` is given.
 *
 * @param {RedisOptions} [options]
 * @returns {Promise<RedisServer & { replica: RedisServer | undefined }>}
 * @example
 * const redis = await startRedis({ replica: true });
 * redis.replica?.pause(); // WAIT 1 has nobody to answer now
 * await redis.stop();
 */
export async function startRedis({ replica, appendonly, cluster, settings = {} } = {}) {
  const primary = await onFreePorts(2, (...ports) =>
    startOne("redis", ports, {
      ...(appendonly ? { appendonly: "yes", appendfsync: "always" } : {}),
      ...(cluster ? { "cluster-enabled": "yes", "cluster-require-full-coverage": "yes" } : {}),
      ...(replica ? { "repl-diskless-sync-delay": "0" } : {}), // by default it waits 5 s for further replicas
      ...settings,
    }),
  );
  try {
    if (cluster) {
      await primary.command("CLUSTER ADDSLOTSRANGE 0 16383");
      await clusterComplete(primary.port);
    }
    const follower = replica ? await startReplica(primary) : undefined;
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

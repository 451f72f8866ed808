// @ts-check
/** RabbitMQ: one node without plugins, with an Erlang port mapper (epmd) of its own. */
import { writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { need } from "./packages.mjs";
import { onFreePorts } from "./ports.mjs";
import { removeFolder, run, ServerProcess, temporaryFolder } from "./processes.mjs";

/**
 * @param {string} folder
 * @param {number[]} ports
 * @returns {NodeJS.ProcessEnv} for the server and for rabbitmqctl
 */
function environment(folder, [port = 0, distPort = 0, epmdPort = 0]) {
  const nothing = join(folder, "none");
  const env = Object.entries(process.env).filter(([name]) => !/^(RABBITMQ_|ERL_)/.test(name));
  return {
    ...Object.fromEntries(env),
    HOME: folder, // of the Erlang cookie
    ERL_EPMD_PORT: String(epmdPort),
    ERL_EPMD_ADDRESS: "127.0.0.1",
    RABBITMQ_NODENAME: `test-${port}@localhost`,
    RABBITMQ_NODE_IP_ADDRESS: "127.0.0.1",
    RABBITMQ_NODE_PORT: String(port),
    RABBITMQ_DIST_PORT: String(distPort),
    RABBITMQ_MNESIA_BASE: folder,
    RABBITMQ_LOG_BASE: folder,
    RABBITMQ_LOGS: "-", // to stdout
    RABBITMQ_PID_FILE: join(folder, "pid"),
    RABBITMQ_ALLOW_INPUT: "1", // the script becomes the server; else it is a shell that waits for it
    // What the machine's own server is configured for is not for us. A file that does not exist is no configuration.
    RABBITMQ_CONFIG_FILE: join(folder, "rabbitmq.conf"),
    RABBITMQ_CONF_ENV_FILE: nothing,
    RABBITMQ_ADVANCED_CONFIG_FILE: nothing,
    RABBITMQ_CONFIG_FILES: nothing,
    RABBITMQ_ENABLED_PLUGINS_FILE: join(folder, "enabled_plugins"),
    RABBITMQ_ENABLED_PLUGINS: "",
    // Loading its code is a ping-pong of two threads. By default each sleeps at once when it has nothing to do, and is
    // woken at the price of a system call: measured 5.5 s to start, against 2.1 s when they look around a moment longer.
    RABBITMQ_SCHEDULER_BUSY_WAIT_THRESHOLD: "very_short",
    // Its own distribution port listens on loopback too.
    RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS: "-kernel inet_dist_use_interface {127,0,0,1}",
  };
}

/** @param {number[]} ports for AMQP, Erlang's distribution, and epmd */
async function start([port = 0, distPort = 0, epmdPort = 0]) {
  const folder = temporaryFolder("rabbitmq");
  const env = environment(folder, [port, distPort, epmdPort]);
  writeFileSync(join(folder, "enabled_plugins"), "[].\n");
  writeFileSync(join(folder, "rabbitmq.conf"), "");
  // Started by the server, epmd would be a daemon that nobody ends.
  const epmd = new ServerProcess({
    name: "epmd",
    folder,
    env,
    command: [await need("epmd"), "-d", "-d"],
    ready: (log) => log.includes("entering the main select"),
  });
  const server = new ServerProcess({
    name: "rabbitmq",
    folder,
    env,
    command: [await need("rabbitmq-server"), "-noinput"],
    ready: (log) => /completed with \d+ plugins/.test(log),
    endSignal: "SIGKILL", // its folder is all that it leaves
  });
  const stop = async () => {
    await server.end();
    await epmd.end();
    await removeFolder(folder);
  };
  try {
    await epmd.start();
    await server.start();
  } catch (error) {
    await stop();
    throw error;
  }
  const ctl = join(dirname(await need("rabbitmq-server")), "rabbitmqctl");
  return {
    host: "127.0.0.1",
    port,
    url: `amqp://guest:guest@127.0.0.1:${port}`,
    get pid() {
      return server.pid;
    },
    /** Of the Erlang port mapper. */
    get epmdPid() {
      return epmd.pid;
    },
    get log() {
      return server.log;
    },
    /**
     * `rabbitmqctl --quiet`; takes about a second.
     *
     * @param {string[]} args such as "list_queues", "name", "messages"
     */
    ctl: (...args) => run([ctl, "--quiet", ...args], { env }),
    kill9: () => server.kill9(),
    /** Starts it again at the same port, also after kill9(). */
    restart: () => server.restart(),
    /** It answers nothing until resume(); its connections stay open. */
    pause: () => server.signal("SIGSTOP"),
    resume: () => server.signal("SIGCONT"),
    stop,
    [Symbol.asyncDispose]: stop,
  };
}

/**
 * Starts RabbitMQ on a free port of 127.0.0.1, for the user `guest`.
 *
 * @example
 * const rabbitmq = await startRabbitmq();
 * const connection = await amqp.connect(rabbitmq.url);
 * await rabbitmq.stop();
 */
export function startRabbitmq() {
  return onFreePorts(3, (...ports) => start(ports));
}

// @ts-check
/** etcd: one member, reached by its HTTP gateway (`/v3/kv/put`) or by gRPC, both on the same port. */
import { need } from "./packages.mjs";
import { onFreePorts } from "./ports.mjs";
import { removeFolder, ServerProcess, temporaryFolder } from "./processes.mjs";

/**
 * @param {number[]} ports for clients, and for peers that never come
 * @param {string[]} args
 */
async function start([port = 0, peerPort = 0], args) {
  const folder = temporaryFolder("etcd");
  const url = `http://127.0.0.1:${port}`;
  const peerUrl = `http://127.0.0.1:${peerPort}`;
  const server = await ServerProcess.start({
    name: "etcd",
    folder,
    command: [
      await need("etcd"),
      ...["--name", "test", "--data-dir", folder],
      ...["--listen-client-urls", url, "--advertise-client-urls", url],
      ...["--listen-peer-urls", peerUrl, "--initial-advertise-peer-urls", peerUrl],
      ...["--initial-cluster", `test=${peerUrl}`],
      // Alone it elects itself after one election timeout: 0.1 s in place of 1 s. Nobody can contest it.
      ...["--heartbeat-interval", "10", "--election-timeout", "100"],
      ...["--logger", "zap", "--log-outputs", "stderr"],
      ...args,
    ],
    ready: (log) => log.includes("serving client traffic"), // it has elected itself before
    endSignal: "SIGKILL", // its folder is all that it leaves
  });
  const stop = async () => {
    await server.end();
    await removeFolder(folder);
  };
  return {
    host: "127.0.0.1",
    port,
    url,
    get pid() {
      return server.pid;
    },
    get log() {
      return server.log;
    },
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
 * Starts etcd on a free port of 127.0.0.1.
 *
 * @param {{ args?: string[] | undefined }} [options] further arguments, such as `["--quota-backend-bytes", "16777216"]`
 * @example
 * const etcd = await startEtcd();
 * await fetch(`${etcd.url}/v3/kv/put`, { method: "POST", body: JSON.stringify({ key: btoa("k"), value: btoa("v") }) });
 * await etcd.stop();
 */
export function startEtcd({ args = [] } = {}) {
  return onFreePorts(2, (...ports) => start(ports, args));
}

// @ts-check
/** The compiled Leasehold server, with a store on disk: run `npm run build` first. */
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { onFreePorts } from "./ports.mjs";
import { removeFolder, ServerProcess, temporaryFolder } from "./processes.mjs";

const CLI = fileURLToPath(new URL("../../dist/cli/main.js", import.meta.url));

/**
 * @param {number[]} ports
 * @param {string[]} args
 */
async function start([port, opsPort], args) {
  const folder = temporaryFolder("leasehold");
  const address = `127.0.0.1:${port}`;
  const opsAddress = `127.0.0.1:${opsPort}`;
  const listen = ["--listen", address, "--ops-listen", opsAddress, "--store", `level:${join(folder, "store")}`];
  const server = await ServerProcess.start({
    name: "leasehold",
    folder,
    command: [process.execPath, CLI, "serve", ...listen, ...args],
    ready: (log) => log.includes('"serving"'),
  });
  const stop = async () => {
    await server.end();
    await removeFolder(folder);
  };
  return {
    address,
    opsAddress,
    get pid() {
      return server.pid;
    },
    get log() {
      return server.log;
    },
    kill9: () => server.kill9(),
    /** Starts it again at the same addresses with the same store, also after kill9(). */
    restart: () => server.restart(),
    /** It answers nothing until resume(); its connections stay open. */
    pause: () => server.signal("SIGSTOP"),
    resume: () => server.signal("SIGCONT"),
    stop,
    [Symbol.asyncDispose]: stop,
  };
}

/**
 * Starts `leasehold serve` on free ports of 127.0.0.1, with a store of its own in a temporary folder.
 *
 * @param {{ args?: string[] | undefined }} [options] further arguments of `leasehold serve`
 * @example
 * const leasehold = await startLeasehold();
 * const client = await connect(leasehold.address);
 * await leasehold.stop();
 */
export function startLeasehold({ args = [] } = {}) {
  return onFreePorts(2, (...ports) => start(ports, args));
}

// @ts-check
/** MariaDB. Commits are synced to disk, as by default. */
import { join } from "node:path";
import { need } from "./packages.mjs";
import { onFreePorts } from "./ports.mjs";
import { removeFolder, run, ServerProcess, temporaryFolder } from "./processes.mjs";

/** For the installation and the server alike: they must agree on the size of the log. */
const SIZES = ["--innodb-log-file-size=8M", "--innodb-buffer-pool-size=32M"];

/** @param {number} port */
async function start(port) {
  const folder = temporaryFolder("mariadb");
  const data = join(folder, "data");
  // As root it runs only if it is told so. --no-defaults: what the machine's own server is configured for is not for us.
  const asRoot = process.getuid?.() === 0 ? ["--user=root"] : [];
  await run([
    await need("mariadb-install-db"),
    ...["--no-defaults", `--datadir=${data}`, ...asRoot],
    "--auth-root-authentication-method=normal", // the default lets root in by the unix socket only
    // What a power cut could take is only the empty database.
    ...["--innodb-flush-log-at-trx-commit=0", "--innodb-flush-method=nosync"],
    ...SIZES,
  ]);
  const server = await ServerProcess.start({
    name: "mariadb",
    folder,
    command: [
      await need("mariadbd"),
      ...["--no-defaults", `--datadir=${data}`, ...asRoot],
      ...["--bind-address=127.0.0.1", `--port=${port}`, `--socket=${join(folder, "s")}`],
      `--pid-file=${join(folder, "pid")}`,
      `--tmpdir=${folder}`, // a server that starts removes what others have in the shared one
      "--skip-name-resolve", // else it asks the resolver who 127.0.0.1 is
      "--skip-log-bin",
      ...SIZES,
    ],
    // The line about its socket and port comes last; "ready for connections" alone is also said earlier in a recovery.
    ready: (log) => /ready for connections/.test(log) && log.includes(`port: ${port}`),
    endSignal: "SIGKILL", // its folder is all that it leaves
  });
  const stop = async () => {
    await server.end();
    await removeFolder(folder);
  };
  return {
    host: "127.0.0.1",
    port,
    user: "root",
    password: "",
    database: "test",
    url: `mysql://root@127.0.0.1:${port}/test`,
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
 * Starts MariaDB on a free port of 127.0.0.1: an empty database `test`, and `root` without password.
 *
 * @example
 * const mariadb = await startMariadb();
 * const connection = await createConnection(mariadb.url); // mysql2/promise
 * await mariadb.stop();
 */
export function startMariadb() {
  return onFreePorts(1, (port) => start(/** @type {number} */ (port)));
}

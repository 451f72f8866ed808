/**
 * The image without an engine: its files as the Dockerfile copies them, in a root file system of their own that is
 * read-only but for the volume, and in it a process of the image's user, without a capability. By `unshare`, `mount` and
 * `chroot`, so only for root; the mounts are the process's own and go with it.
 */
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { chmodSync, chownSync, cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { productionPaths } from "../../scripts/production.mjs";
import { imageEnvironment, root } from "./support.js";

const USER = 1000;

/** Whether this machine can do it: root, and permitted to mount. */
export const canContain = (): boolean =>
  process.getuid?.() === 0 && spawnSync("unshare", ["--mount", "mount", "-t", "tmpfs", "none", "/mnt"]).status === 0;

export interface Run {
  readonly child: ChildProcess;
  readonly output: () => string;
  readonly exit: Promise<number | null>;
}

export class Image {
  readonly #folder = mkdtempSync(join(tmpdir(), "leasehold-image-"));
  readonly #app = join(this.#folder, "app");
  /** The volume. */
  readonly data = join(this.#folder, "data");
  /** Mounted at /etc/leasehold. */
  readonly etc = join(this.#folder, "etc");

  constructor() {
    for (const path of [this.data, this.etc, join(this.#folder, "root")]) mkdirSync(path);
    chmodSync(this.#folder, 0o755); // the image's user passes through it
    chownSync(this.data, USER, USER);
    chmodSync(this.data, 0o700);
    // As npm installs them: checked by hand to be the same as those of `npm ci --omit=dev`.
    const lock = JSON.parse(readFileSync(join(root, "package-lock.json"), "utf8"));
    const packages = productionPaths(lock).filter((path) => path.startsWith("node_modules/"));
    for (const path of [...packages, "dist", "src/client/dist", "src/client/package.json", "package.json"]) {
      this.#copy(path, path);
    }
    this.#copy("deploy/docker/healthcheck.mjs", "healthcheck.mjs");
  }

  #copy(from: string, to: string): void {
    mkdirSync(dirname(join(this.#app, to)), { recursive: true });
    // Packages within packages have paths of their own in the list.
    const filter = (path: string) => path === join(root, from) || !/\/node_modules$/.test(path);
    cpSync(join(root, from), join(this.#app, to), { recursive: true, verbatimSymlinks: true, filter });
  }

  /** Runs a command in it; the image's environment, and `env` above it. */
  run(command: readonly string[], env: Readonly<Record<string, string>> = {}): Run {
    const top = join(this.#folder, "root");
    const folders = ["/usr", "/bin", "/lib", "/lib64", dirname(process.execPath)];
    const bind = (from: string, to: string) => `mkdir -p ${top}${to}; mount --bind ${from} ${top}${to}`;
    const script = [
      "set -e",
      `mount -t tmpfs none ${top}`,
      ...folders.map(
        (path) => `if [ -d ${path} ]; then ${bind(path, path)}; mount -o remount,ro,bind ${top}${path}; fi`,
      ),
      `${bind(this.#app, "/app")}; mount -o remount,ro,bind ${top}/app`,
      `${bind(this.etc, "/etc/leasehold")}; mount -o remount,ro,bind ${top}/etc/leasehold`,
      bind(this.data, "/var/lib/leasehold"),
      `mkdir -p ${top}/proc; mount -t proc proc ${top}/proc`,
      `mkdir -p ${top}/dev; touch ${top}/dev/null ${top}/dev/urandom`,
      `for f in null urandom; do mount --bind /dev/$f ${top}/dev/$f; done`,
      `mount -o remount,ro ${top}`,
      `exec chroot ${top} setpriv --reuid=${USER} --regid=${USER} --clear-groups --no-new-privs --inh-caps=-all ` +
        '--bounding-set=-all "$@"',
    ].join("\n");
    const args = ["--mount", "--propagation", "private", "sh", "-c", script, "sh", ...command];
    const set = { PATH: `${dirname(process.execPath)}:/usr/sbin:/usr/bin:/sbin:/bin`, ...imageEnvironment(), ...env };
    const child = spawn("unshare", args, { env: set, stdio: ["ignore", "pipe", "pipe"] });
    let output = "";
    for (const stream of [child.stdout, child.stderr]) {
      stream.on("data", (chunk) => {
        output += chunk;
      });
    }
    const exit = once(child, "close").then(([code]) => code as number | null);
    return { child, output: () => output, exit };
  }

  remove(): void {
    rmSync(this.#folder, { recursive: true, force: true });
  }
}

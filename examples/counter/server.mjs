/** A Leasehold server in a process of its own, to be killed and started again on the same store. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { createServer } from "node:net";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { endsWithUs } from "./children.mjs";

// In an application of yours: `npx leasehold serve`.
const LEASEHOLD = fileURLToPath(new URL("../../dist/cli/main.js", import.meta.url));

async function freePort() {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address();
  server.close();
  await once(server, "close");
  return port;
}

export class Server {
  #ops;
  #store;
  #process;
  #log = "";

  /** @param {string} store a folder, which need not exist */
  static async start(store) {
    const server = new Server();
    server.address = `127.0.0.1:${await freePort()}`;
    server.#ops = `127.0.0.1:${await freePort()}`;
    server.#store = store;
    await server.startAgain();
    return server;
  }

  /** Resolves when it grants locks. */
  async startAgain() {
    const where = ["--listen", this.address, "--ops-listen", this.#ops, "--store", `level:${this.#store}`];
    const command = [LEASEHOLD, "serve", ...where];
    this.#process = endsWithUs(spawn(process.execPath, command, { stdio: ["ignore", "pipe", "pipe"] }));
    const keep = (chunk) => {
      this.#log = (this.#log + chunk).slice(-4_000);
    };
    this.#process.stdout.on("data", keep);
    this.#process.stderr.on("data", keep);
    const giveUpAt = Date.now() + 15_000;
    while (!(await this.#ready())) {
      if (this.#process.exitCode !== null || Date.now() > giveUpAt) throw new Error(`no server:\n${this.#log}`);
      await delay(25);
    }
  }

  async #ready() {
    const response = await fetch(`http://${this.#ops}/readyz`).catch(() => undefined);
    await response?.arrayBuffer();
    return response?.ok === true;
  }

  /** `kill -9` unless another signal is named. Resolves when it is gone. */
  async kill(signal = "SIGKILL") {
    if (this.#process.exitCode !== null || this.#process.signalCode !== null) return;
    this.#process.kill(signal);
    await once(this.#process, "exit");
  }
}

/** The worker processes: started, interrupted in the middle of an increment, paused, killed, replaced. */
import { fork } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import { endsWithUs } from "./children.mjs";

const WORKER = fileURLToPath(new URL("worker.mjs", import.meta.url));

class Worker {
  /** Tokens of its writes that the fence refused. */
  refused = [];
  killed = false;
  #process;
  #onReady = () => {};
  #onInterrupted = () => {};

  constructor(job) {
    this.job = job;
    const stdio = ["ignore", "inherit", "inherit", "ipc"];
    this.#process = endsWithUs(fork(WORKER, [JSON.stringify(job)], { stdio }));
    this.#process.on("message", (message) => {
      if (message.ready) this.#onReady();
      if (message.refused !== undefined) this.refused.push(message.refused);
      if (message.interrupted !== undefined) this.#onInterrupted(message.interrupted);
    });
    this.ready = new Promise((resolve) => {
      this.#onReady = resolve;
    });
    this.ended = once(this.#process, "exit").then(([code, signal]) => {
      if (code !== 0 && !(this.killed && signal === "SIGKILL")) {
        throw new Error(`worker ${job.worker} ended with ${signal ?? `code ${code}`}`);
      }
    });
    this.ended.catch(() => {}); // looked at by `Crew.finish`
  }

  get name() {
    return this.job.worker;
  }

  /** Resolves, with the token, when it has read the value and has not written it. */
  interrupt() {
    const interrupted = new Promise((resolve) => {
      this.#onInterrupted = resolve;
    });
    if (this.#process.connected) this.#process.send("interrupt");
    return interrupted;
  }

  /** Another one was first. */
  doNotInterrupt() {
    if (this.#process.connected) this.#process.send("do not interrupt");
  }

  goOn() {
    this.#process.send("go on");
  }

  signal(signal) {
    this.killed ||= signal === "SIGKILL";
    this.#process.kill(signal);
  }
}

export class Crew {
  #workers = [];

  /** @param {{ worker: string }} job what worker.mjs is told */
  add(job) {
    const worker = new Worker(job);
    this.#workers.push(worker);
    return worker;
  }

  /** Lets all begin as soon as all are there. */
  async begin() {
    await Promise.race([Promise.all(this.#workers.map((worker) => worker.ready)), this.failure()]);
    for (const worker of this.#workers) worker.goOn();
  }

  /** Stops whoever holds the lock next. The others still have work then, and wait for the lock. */
  async interruptNext() {
    const working = this.#workers.filter((worker) => !worker.killed);
    const first = await Promise.race(working.map(async (worker) => ({ worker, token: await worker.interrupt() })));
    for (const worker of working) if (worker !== first.worker) worker.doNotInterrupt();
    return first;
  }

  get refused() {
    return this.#workers.flatMap((worker) => worker.refused);
  }

  /** Resolves when all have done their work; rejects if one has failed. */
  async finish() {
    // One that replaces another is added while the others are waited for.
    for (let i = 0; i < this.#workers.length; i++) await this.#workers[i].ended;
  }

  /** Rejects as soon as one has failed. */
  failure() {
    return new Promise((_, reject) => {
      for (const worker of this.#workers) worker.ended.catch(reject);
    });
  }
}

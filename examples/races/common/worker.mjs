/**
 * Worker processes of a race: told what to do, stopped at a known point, paused, killed. They end with their parent.
 *
 * A worker says `await point("name")` where it may be held. The parent decides beforehand which of these points hold it;
 * at all others it goes straight on. So schedules that need luck elsewhere happen in every run.
 */
import { fork } from "node:child_process";
import { once } from "node:events";

const running = new Set();
process.on("exit", () => {
  for (const child of running) child.kill("SIGKILL");
});
for (const signal of ["SIGINT", "SIGTERM"]) process.once(signal, () => process.exit(1));

/** A worker as its parent sees it. */
export class Worker {
  /** Everything that it has reported, in order. */
  reports = [];
  #child;
  #waiting = [];
  #ended;

  /**
   * @param {URL} script
   * @param {object} job what it gets as its `job`
   * @param {{ holdAt?: string[], env?: Record<string, string>, command?: string[] }} [options] `holdAt`: the points at which
   *   it stands still, each once; `command`: a program with arguments that runs node
   */
  constructor(script, job, { holdAt = [], env = {}, command = [] } = {}) {
    const [program, ...before] = [...command, process.execPath];
    this.#child = fork(script, [JSON.stringify({ job, holdAt })], {
      execPath: program,
      execArgv: before,
      env: { ...process.env, ...env },
      stdio: ["ignore", "inherit", "inherit", "ipc"],
    });
    running.add(this.#child);
    this.#child.on("message", (report) => this.#take(report));
    this.#ended = once(this.#child, "exit").then(([code, signal]) => {
      running.delete(this.#child);
      for (const { reject, what } of this.#waiting)
        reject(new Error(`a worker ended (${code ?? signal}) before ${what}`));
      return { code, signal };
    });
  }

  #take(report) {
    this.reports.push(report);
    this.#waiting = this.#waiting.filter(({ key, resolve }) => {
      if (!(key in report)) return true;
      resolve(report);
      return false;
    });
  }

  /** The next report that has this key. Rejects when the worker ends before. */
  next(key) {
    return new Promise((resolve, reject) => {
      this.#waiting.push({ key, resolve, reject, what: `it reported "${key}"` });
    });
  }

  /** Resolves when it stands still at that point. */
  async at(point) {
    const found = this.reports.find((report) => report.at === point);
    if (found) return found;
    for (;;) {
      const report = await this.next("at");
      if (report.at === point) return report;
    }
  }

  /** It goes on from where it stands still. */
  goOn() {
    this.#child.send("go on");
  }

  send(message) {
    this.#child.send(message);
  }

  /** SIGSTOP, SIGCONT, SIGKILL. */
  signal(signal) {
    this.#child.kill(signal);
  }

  /** Resolves when it has ended by itself; rejects when it has failed. */
  async finished() {
    const { code, signal } = await this.#ended;
    if (code !== 0) throw new Error(`a worker failed (${code ?? signal})`);
  }

  /** `kill -9`. Resolves when it is gone. */
  async kill() {
    this.#child.kill("SIGKILL");
    await this.#ended;
  }
}

/**
 * In a worker: its job, and what it says to its parent.
 *
 * @returns {{ job: any, report: (what: object) => void, point: (name: string, more?: object) => Promise<void>,
 *   onMessage: (f: (message: any) => void) => void }}
 */
export function atWork() {
  const { job, holdAt } = JSON.parse(process.argv[2]);
  const holding = new Set(holdAt);
  process.on("disconnect", () => process.exit(1)); // its parent has gone
  return {
    job,
    report: (what) => process.send(what),
    async point(name, more = {}) {
      if (!holding.delete(name)) return;
      const goOn = once(process, "message");
      process.send({ at: name, ...more });
      await goOn;
    },
    onMessage: (f) => void process.on("message", f),
  };
}

/** Resolves when the condition holds; rejects when it does not within half a minute. */
export async function until(what, condition) {
  const giveUpAt = performance.now() + 30_000;
  while (!(await condition())) {
    if (performance.now() > giveUpAt) throw new Error(`waited for 30 s until ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

/** In a worker: the end. What it has reported arrives first. */
export function done() {
  process.send({ done: true }, () => process.exit(0));
}

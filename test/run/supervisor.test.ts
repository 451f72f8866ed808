/** Supervisor and guardian as real processes, with a pretended lock: who ends the command when who fails. */
import { type ChildProcess, spawn } from "node:child_process";
import { randomUUID } from "node:crypto";
import { fileURLToPath } from "node:url";
import { expect, onTestFinished, test } from "vitest";
import type { Plan } from "../../src/cli/run/belief.js";
import type { Command } from "../../src/cli/run/channel.js";
import type { RunResult } from "../../src/cli/run/supervisor.js";
import { temporaryFolder, until } from "../e2e/support.js";
import { alive, childrenOf, guardianOf, type Seen, seen, TreeLog } from "./processes.js";

const supervise = fileURLToPath(new URL("./supervise.mjs", import.meta.url));
const tree = fileURLToPath(new URL("./tree.mjs", import.meta.url));

/** A margin for test machines that are busy with other tests. */
const PLAN: Plan = { graceMs: 200, marginMs: 500 };
const TTL_MS = 2_400;

class Supervised {
  readonly #process: ChildProcess;
  deadlineMs = 0;
  output = "";
  result: RunResult | undefined;

  constructor(command: Partial<Command> & { file: string }, job: { ttlMs?: number; plan?: Plan } = {}) {
    const whole = { args: [], ownGroup: true, marker: randomUUID(), ...command };
    const { ttlMs = TTL_MS, plan = PLAN } = job;
    this.#process = spawn(process.execPath, [supervise], {
      env: { ...process.env, JOB: JSON.stringify({ command: whole, plan, ttlMs }) },
      stdio: ["ignore", "pipe", "inherit", "ipc"],
      detached: true,
    });
    this.#process.stdout?.on("data", (chunk) => {
      this.output += chunk;
    });
    this.#process.on("message", (message: { deadlineMs: number } | { result: RunResult }) => {
      if ("result" in message) this.result = message.result;
      else this.deadlineMs = message.deadlineMs;
    });
    onTestFinished(() => {
      this.#process.kill("SIGKILL");
    });
  }

  get pid(): number {
    return this.#process.pid as number;
  }

  signal(signal: NodeJS.Signals): void {
    this.#process.kill(signal);
  }

  tell(what: "stop_renewing" | "lose"): void {
    this.#process.send(what);
  }

  async ended(): Promise<RunResult> {
    await until(() => this.result !== undefined, 20_000, "the result");
    return this.result as RunResult;
  }

  async guardian(): Promise<number> {
    await until(() => guardianOf(this.pid) !== undefined, 20_000, "the guardian");
    const { pid } = guardianOf(this.pid) as Seen;
    onTestFinished(() => {
      // Still the same process, which a failed test may have left stopped.
      if (seen(pid)?.commandLine.includes("guardian.js")) process.kill(pid, "SIGKILL");
    });
    return pid;
  }
}

const node = (script: string): { file: string; args: string[] } => ({ file: process.execPath, args: ["-e", script] });

/** A command of several processes, up and running. */
async function runTree(roles: string[], options: { ownGroup?: boolean } & { ttlMs?: number; plan?: Plan } = {}) {
  const log = new TreeLog(await temporaryFolder());
  const { ownGroup = true, ...job } = options;
  const supervised = new Supervised({ file: process.execPath, args: [tree, log.folder, ...roles], ownGroup }, job);
  onTestFinished(() => {
    for (const pid of log.alive) process.kill(pid, "SIGKILL");
  });
  await until(() => log.pids.length === roles.length, 20_000, "the start of the command");
  return { log, supervised, guardian: await supervised.guardian() };
}

const childIds = (pid: number): number[] => childrenOf(pid).map((p) => p.pid);
const hasChild = (pid: number): boolean => childIds(pid).length > 0 || !alive(pid);

const gone = (log: TreeLog) => until(() => log.alive.length === 0, 20_000, "the end of the command");

test("the exit code comes through", async () => {
  expect(await new Supervised(node("process.exit(7)")).ended()).toEqual({ is: "exited", code: 7 });
});

test("the signal that ended the command comes through", async () => {
  const result = await new Supervised(node("process.kill(process.pid, 'SIGUSR2')")).ended();
  expect(result).toEqual({ is: "signalled", signal: "SIGUSR2" });
});

test.each([
  ["/nonexistent/command", "ENOENT"],
  ["no-such-command-anywhere", "ENOENT"],
  ["", "ERR_INVALID_ARG_VALUE"],
  ["/etc/passwd", "EACCES"],
  ["/", "EACCES"],
])("%o cannot be started", async (file, code) => {
  expect(await new Supervised({ file }).ended()).toEqual({ is: "not_started", code });
});

test("with too little time left nothing is started", async () => {
  const result = await new Supervised(node(""), { ttlMs: 600, plan: { graceMs: 500, marginMs: 500 } }).ended();
  expect(result).toEqual({ is: "ended", cause: "deadline", survivors: 0 });
});

test("the command gets three descriptors, all of them blocking", async () => {
  const script = `const fs = require("node:fs");
    const flags = (fd) => Number.parseInt(/flags:\\s*(\\d+)/.exec(fs.readFileSync("/proc/self/fdinfo/" + fd, "utf8"))[1], 8);
    const pipes = fs.readdirSync("/proc/" + process.pid + "/fd").filter((fd) => {
      try { return Number(fd) > 2 && /^socket/.test(fs.readlinkSync("/proc/self/fd/" + fd)); } catch { return false; }
    });
    fs.writeSync(1, JSON.stringify({ nonblocking: [0, 1, 2].filter((fd) => flags(fd) & 0o4000), pipes }));`;
  const supervised = new Supervised(node(script));
  await supervised.ended();
  expect(JSON.parse(supervised.output)).toEqual({ nonblocking: [], pipes: [] });
});

test("a lost lock ends a command that obeys", async () => {
  const { log, supervised } = await runTree(["obedient"]);
  supervised.tell("lose");
  expect(await supervised.ended()).toEqual({ is: "ended", cause: "lost", survivors: 0 });
  expect(log.alive).toEqual([]);
});

test("a lost lock ends a command and its descendants that ignore SIGTERM", async () => {
  const { log, supervised } = await runTree(["stubborn", "stubborn", "stubborn"]);
  supervised.tell("lose");
  expect(await supervised.ended()).toEqual({ is: "ended", cause: "lost", survivors: 0 });
  expect(log.alive).toEqual([]);
  expect(new Set(log.asked)).toEqual(new Set(log.pids));
});

test("descendants are ended although the command itself obeyed at once", async () => {
  const { log, supervised } = await runTree(["obedient", "stubborn"]);
  supervised.tell("lose");
  expect(await supervised.ended()).toEqual({ is: "ended", cause: "lost", survivors: 0 });
  expect(log.alive).toEqual([]);
});

test("descendants that left for a session of their own are found", async () => {
  const { log, supervised } = await runTree(["obedient", "session"]);
  const sessions = log.pids.map((pid) => seen(pid)?.session);
  expect(new Set(sessions).size).toBe(2);
  supervised.tell("lose");
  expect(await supervised.ended()).toEqual({ is: "ended", cause: "lost", survivors: 0 });
  expect(log.alive).toEqual([]);
});

test("a command that is stopped is ended, too", async () => {
  const { log, supervised } = await runTree(["stopped"]);
  supervised.tell("lose");
  expect(await supervised.ended()).toEqual({ is: "ended", cause: "lost", survivors: 0 });
  expect(log.asked).toEqual(log.pids);
});

test("while it is renewed the command lives on, past many TTLs", async () => {
  const plan = { graceMs: 50, marginMs: 100 };
  // Not shorter: what a machine that is busy with other tests takes away is no want of renewals.
  const { log, supervised } = await runTree(["obedient"], { ttlMs: 1_500, plan });
  const first = supervised.deadlineMs;
  await until(() => supervised.deadlineMs > first + 4_500);
  expect(log.alive).toEqual(log.pids);
  supervised.tell("lose");
  await supervised.ended();
});

test("without renewals the command is dead before the deadline", async () => {
  const { log, supervised } = await runTree(["stubborn", "stubborn"]);
  supervised.tell("stop_renewing");
  expect(await supervised.ended()).toEqual({ is: "ended", cause: "deadline", survivors: 0 });
  expect(log.alive).toEqual([]);
  expect(log.lastBeatMs).toBeLessThan(supervised.deadlineMs);
});

test("supervisor stopped: the command is dead before the deadline", async () => {
  const { log, supervised, guardian } = await runTree(["stubborn", "session"]);
  supervised.signal("SIGSTOP");
  await gone(log);
  expect(supervised.result).toBeUndefined();
  expect(log.lastBeatMs).toBeLessThan(supervised.deadlineMs);
  await until(() => !alive(guardian));
  supervised.signal("SIGCONT");
  expect(await supervised.ended()).toEqual({ is: "ended", cause: "deadline", survivors: 0 });
});

test("supervisor stopped, and the command ended by itself in time: its own exit code counts", async () => {
  const supervised = new Supervised(node("setTimeout(() => process.exit(5), 300)"));
  const guardian = await supervised.guardian();
  await until(() => hasChild(guardian));
  supervised.signal("SIGSTOP");
  await until(() => !alive(guardian), 20_000, "the end of the guardian");
  await until(() => Number(process.hrtime.bigint()) / 1e6 > supervised.deadlineMs);
  supervised.signal("SIGCONT");
  expect(await supervised.ended()).toEqual({ is: "exited", code: 5 });
});

test("supervisor killed: the command is ended at once, the guardian goes", async () => {
  const { log, supervised, guardian } = await runTree(["stubborn", "stubborn", "session"], { ttlMs: 60_000 });
  supervised.signal("SIGKILL");
  await gone(log);
  await until(() => !alive(guardian), 20_000, "the end of the guardian");
});

test("supervisor killed while the command is being started: nothing is left", async () => {
  for (let round = 0; round < 8; round++) {
    const log = new TreeLog(await temporaryFolder());
    const supervised = new Supervised({ file: process.execPath, args: [tree, log.folder, "stubborn"] });
    const guardian = await supervised.guardian();
    // At different moments of the guardian's life, told by its progress, not by a clock.
    if (round % 4 === 1) await until(() => seen(guardian)?.session === guardian);
    if (round % 4 === 2) await until(() => hasChild(guardian));
    if (round % 4 === 3) await until(() => log.pids.length === 1);
    supervised.signal("SIGKILL");
    await until(() => !alive(guardian), 20_000, "the end of the guardian");
    expect(log.alive).toEqual([]);
  }
});

test("guardian killed: the supervisor ends the command", async () => {
  const { log, supervised, guardian } = await runTree(["stubborn", "stubborn", "session"], { ttlMs: 60_000 });
  process.kill(guardian, "SIGKILL");
  expect(await supervised.ended()).toEqual({ is: "ended", cause: "no_guardian", survivors: 0 });
  expect(log.alive).toEqual([]);
});

test("guardian killed while it starts the command: nothing is left", async () => {
  for (let round = 0; round < 8; round++) {
    const log = new TreeLog(await temporaryFolder());
    const supervised = new Supervised({ file: process.execPath, args: [tree, log.folder, "stubborn"] });
    const guardian = await supervised.guardian();
    if (round % 2 === 1) await until(() => hasChild(guardian));
    const children = childIds(guardian);
    process.kill(guardian, "SIGKILL");
    expect(await supervised.ended()).toEqual({ is: "ended", cause: "no_guardian", survivors: 0 });
    expect([...log.alive, ...children.filter(alive)]).toEqual([]);
  }
});

test("guardian stopped: the supervisor ends the command although the lock is held", async () => {
  const { log, supervised, guardian } = await runTree(["stubborn", "stubborn"]);
  process.kill(guardian, "SIGSTOP");
  expect(await supervised.ended()).toEqual({ is: "ended", cause: "no_guardian", survivors: 0 });
  expect(log.alive).toEqual([]);
  expect(alive(guardian)).toBe(false);
});

test("guardian stopped and no renewals: the command is dead before the deadline", async () => {
  const { log, supervised, guardian } = await runTree(["stubborn", "stubborn"]);
  process.kill(guardian, "SIGSTOP");
  supervised.tell("stop_renewing");
  await supervised.ended();
  expect(log.alive).toEqual([]);
  expect(log.lastBeatMs).toBeLessThan(supervised.deadlineMs);
});

test("guardian stopped when the lock is lost: the supervisor ends the command", async () => {
  const { log, supervised, guardian } = await runTree(["stubborn"], { ttlMs: 60_000 });
  process.kill(guardian, "SIGSTOP");
  supervised.tell("lose");
  expect(await supervised.ended()).toEqual({ is: "ended", cause: "lost", survivors: 0 });
  expect(log.alive).toEqual([]);
});

test("guardian stopped in the middle of an ending: the supervisor goes on with it", async () => {
  const { log, supervised, guardian } = await runTree(["stubborn"], {
    ttlMs: 60_000,
    plan: { graceMs: 700, marginMs: 500 },
  });
  supervised.tell("lose");
  await until(() => log.asked.length === 1);
  process.kill(guardian, "SIGSTOP");
  expect(await supervised.ended()).toEqual({ is: "ended", cause: "lost", survivors: 0 });
  expect(log.alive).toEqual([]);
});

test("guardian stopped for a while past its news: it does not end a command whose lock was renewed meanwhile", async () => {
  const { log, supervised, guardian } = await runTree(["stubborn"], {
    ttlMs: 6_000,
    plan: { graceMs: 100, marginMs: 100 },
  });
  process.kill(guardian, "SIGSTOP");
  const before = supervised.deadlineMs;
  await until(() => supervised.deadlineMs > before + 2_000);
  process.kill(guardian, "SIGCONT");
  const after = supervised.deadlineMs;
  await until(() => supervised.deadlineMs > after + 4_000);
  expect(log.alive).toEqual(log.pids);
  supervised.tell("lose");
  await supervised.ended();
});

test("a belief that lay in the pipe is no longer for that: the command is dead before the deadline", async () => {
  const { log, supervised, guardian } = await runTree(["stubborn"], { ttlMs: 4_000 });
  process.kill(guardian, "SIGSTOP");
  const before = supervised.deadlineMs;
  await until(() => supervised.deadlineMs > before + 800); // one renewal at least is in the pipe
  supervised.signal("SIGSTOP");
  await until(() => Number(process.hrtime.bigint()) / 1e6 > supervised.deadlineMs - 1_500);
  process.kill(guardian, "SIGCONT");
  await gone(log);
  expect(log.lastBeatMs).toBeLessThan(supervised.deadlineMs);
});

test("on a terminal all stay in one group, and the guardian still ends the command", async () => {
  const { log, supervised, guardian } = await runTree(["stubborn", "stubborn"], { ownGroup: false, ttlMs: 60_000 });
  const groups = [supervised.pid, guardian, ...log.pids].map((pid) => seen(pid)?.group);
  expect(new Set(groups)).toEqual(new Set([supervised.pid]));
  process.kill(guardian, "SIGINT"); // as the terminal would
  process.kill(guardian, "SIGTSTP");
  supervised.signal("SIGKILL");
  await gone(log);
  await until(() => !alive(guardian), 20_000, "the end of the guardian");
});

test("away from a terminal guardian and command are out of reach of the supervisor's group", async () => {
  const { log, supervised, guardian } = await runTree(["stubborn"]);
  const sessions = [supervised.pid, guardian, ...log.pids].map((pid) => seen(pid)?.session);
  expect(new Set(sessions).size).toBe(3);
  supervised.tell("lose");
  await supervised.ended();
});

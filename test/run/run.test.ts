/** `leasehold run` against a real server, from its command line to its exit code. */
import { chmod, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { connect } from "@leasehold/client";
import { describe, expect, onTestFinished, test } from "vitest";
import { acquireOnly } from "../cli/acquire-only.js";
import { program } from "../cli/support.js";
import { memoryServer } from "../e2e/in-process.js";
import { ServerProcess, temporaryFolder, until } from "../e2e/support.js";
import { alive, childrenOf, seen, TreeLog } from "./processes.js";
import { aliveAtNextGrant, client, LOCK, memoryProcess, node, Run, runTree, SHORT, tree } from "./support.js";

describe("the command", () => {
  test("gets token, lock and address, its arguments as they are, and standard input", async () => {
    const server = await memoryServer();
    const script = `let text = ""; process.stdin.on("data", (d) => (text += d)).on("end", () => console.log(JSON.stringify({
      args: process.argv.slice(1), text, token: process.env.LEASEHOLD_TOKEN, lock: process.env.LEASEHOLD_LOCK,
      addr: process.env.LEASEHOLD_ADDR, kept: process.env.KEPT, options: process.execArgv.length + process.env.NODE_OPTIONS })))`;
    const args = ["--ttl", "", "--", "-n", "$HOME *", "a\nb", "ü"];
    const run = new Run(server, [LOCK, ...node(script), "--", ...args], {
      KEPT: "as it was",
      NODE_OPTIONS: "--no-warnings",
    });
    run.input("through\n");
    expect(await run.exit()).toBe(0);
    expect(JSON.parse(run.stdout)).toEqual({
      args,
      text: "through\n",
      token: "1",
      lock: LOCK,
      addr: server.address,
      kept: "as it was",
      options: "2--no-warnings",
    });
    expect(run.stderr).toBe("");
  });

  test.each([
    { args: [LOCK, "true"], code: 0 },
    { args: [LOCK, "--", "false"], code: 1 },
    { args: ["--ttl", "20s", LOCK, "--kill-after", "1s", "--", "sh", "-c", "exit 9"], code: 9 },
    { args: [LOCK, "sh", "-c", "exit 75"], code: 75 },
    { args: [LOCK, "--", "sh", "-c", "kill -9 $$"], code: 128 + 9 },
    { args: [LOCK, "sh", "-c", "kill -15 $$"], code: 128 + 15 },
    { args: [LOCK, "--", "/etc/passwd"], code: 126, says: "/etc/passwd: cannot be executed (EACCES)" },
    { args: [LOCK, "no-such-command"], code: 127, says: "no-such-command: not found" },
    { args: [LOCK, "--", ""], code: 127, says: ": not found" },
    { args: ["", "true"], code: 64, says: "the name of a lock must not be empty" },
    { args: [], code: 64, says: "missing required argument 'name'" },
    { args: ["--ttl", "soon", LOCK, "true"], code: 64, says: "It is not a duration" },
    { args: ["-E", "256", LOCK, "true"], code: 64, says: "0 to 255" },
    { args: [LOCK, "--perhaps", "true"], code: 64, says: 'unknown option "--perhaps"' },
    { args: [LOCK, "--max-hols", "9s", "true"], code: 64, says: '"--max-hols" (Did you mean --max-hold?)' },
    { args: ["--shard", LOCK, "true"], code: 64, says: "(Did you mean --shared?)" },
    { args: ["--shared", "--permits", "3", LOCK, "true"], code: 64, says: "--permits" },
    { args: [LOCK, "-s", "--permits", "3", "true"], code: 64, says: "--shared and --permits exclude each other" },
    { args: ["--take", "2", LOCK, "true"], code: 64, says: "give --permits" },
    { args: ["--permits", "2", "--take", "3", LOCK, "true"], code: 64, says: "there are 2 permits; --take 3 is more" },
    { args: ["--max-hold", "0", LOCK, "true"], code: 64, says: "It must be longer than 0" },
    { args: [LOCK, "-n", "-w", "1s", "true"], code: 64, says: "exclude each other" },
    {
      args: ["--ttl", "2s", LOCK, "true"],
      code: 64,
      says: "--ttl 2s is too short to end the command in time: 3 x (--kill-after 3s + margin 100ms) = 9300ms",
    },
    {
      args: ["--max-hold", "3s", LOCK, "true"],
      code: 64,
      says: "--max-hold 3s leaves the command no time; it must be longer than --kill-after 3s + 2 x margin 150ms = 3300ms",
    },
    { args: ["--addr", "127.0.0.1:1", LOCK, "true"], code: 69, says: "cannot reach 127.0.0.1:1 (ECONNREFUSED)" },
    { args: ["--addr", "no address", LOCK, "true"], code: 64, says: "is no address" },
  ])("$args: exit code $code", async ({ args, code, says }) => {
    const server = await memoryServer();
    const run = new Run(server, args);
    expect([await run.exit(), run.stderr]).toEqual([code, expect.stringContaining(says ?? "")]);
    const observer = await client(server);
    expect((await observer.describe(LOCK)).holders).toEqual([]);
  });

  test("an executable without an interpreter line is run as by a shell", async () => {
    const server = await memoryServer();
    const script = join(await temporaryFolder(), "script");
    await writeFile(script, 'exit "$1"\n');
    await chmod(script, 0o755);
    expect(await new Run(server, [LOCK, script, "17"]).exit()).toBe(17);
  });

  test("the lock is held while it runs, and free when it has ended", async () => {
    const server = await memoryServer();
    const run = new Run(server, [LOCK, ...node("process.stdin.resume(); console.log('runs')")]);
    await run.saysOnStdout("runs");
    const observer = await client(server);
    expect((await observer.describe(LOCK)).holders).toHaveLength(1);
    run.input("");
    expect(await run.exit()).toBe(0);
    expect((await observer.describe(LOCK)).holders).toEqual([]);
  });
});

describe("signals", () => {
  test.each(["SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2"] as const)(
    "%s reaches the command and what it started",
    async (signal) => {
      const server = await memoryServer();
      const inner = `process.on(${JSON.stringify(signal)}, () => { console.log("inner"); process.exit(); }); setInterval(() => {}, 1e9); console.log("ready");`;
      const outer = `process.on(${JSON.stringify(signal)}, () => {});
      require("node:child_process").spawn(process.execPath, ["-e", ${JSON.stringify(inner)}], { stdio: "inherit" })
        .on("exit", (code) => process.exit(40 + code));`;
      const run = new Run(server, [LOCK, ...node(outer)]);
      await run.saysOnStdout("ready");
      run.signal(signal);
      expect(await run.exit()).toBe(40);
      expect(run.stdout).toBe("ready\ninner\n");
    },
  );

  test("a signal that ends the command makes the exit code", async () => {
    const server = await memoryServer();
    const run = new Run(server, [LOCK, ...node("setInterval(() => {}, 1e9); console.log('ready')")]);
    await run.saysOnStdout("ready");
    run.signal("SIGTERM");
    expect(await run.exit()).toBe(128 + 15);
  });

  test("a ^C that reaches the command first: the lock is free when the run has ended", async () => {
    const server = await memoryServer();
    const observer = await client(server);
    for (let round = 0; round < 5; round++) {
      const { log, run } = await runTree(server, ["obedient"]);
      process.kill(log.pids[0] as number, "SIGINT");
      run.signal("SIGINT");
      expect(await run.exit()).toBe(130);
      expect((await observer.describe(LOCK)).holders).toEqual([]);
    }
  });

  test("in the foreground the command stays in the group; what a terminal sends to all is not sent twice", async () => {
    const server = await memoryServer();
    const script = `for (const s of ["SIGINT", "SIGTERM"]) process.on(s, () => { console.log(s); if (s === "SIGTERM") process.exit(3); });
      setInterval(() => {}, 1e9); console.log("ready", process.pid)`;
    const run = new Run(server, ["--foreground", LOCK, ...node(script)]);
    await run.saysOnStdout("\n");
    expect(seen(Number(run.stdout.split(" ")[1]))?.group).toBe(run.pid);
    process.kill(-run.pid, "SIGINT");
    await run.saysOnStdout("SIGINT");
    run.signal("SIGTERM");
    expect(await run.exit()).toBe(3);
    expect(run.stdout.split("\n").slice(1)).toEqual(["SIGINT", "SIGTERM", ""]);
  });

  test.each([
    { signal: "SIGINT", code: 130 },
    { signal: "SIGTERM", code: 143 },
    { signal: "SIGUSR1", code: 138 },
  ] as const)("$signal while it waits withdraws it from the queue", async ({ signal, code }) => {
    const server = await memoryServer();
    const holder = await client(server);
    const lock = await holder.acquire(LOCK);
    const run = new Run(server, [LOCK, "true"]);
    await until(async () => (await holder.describe(LOCK)).waitersTotal === 1, 20_000, "the ticket");
    run.signal(signal);
    expect(await run.exit()).toBe(code);
    expect((await holder.describe(LOCK)).waitersTotal).toBe(0);
    await lock.release();
    const next = await holder.tryAcquire(LOCK);
    expect(next.acquired).toBe(true);
  });

  test("a suspended run stops its command, and goes on with it", async () => {
    const server = await memoryServer();
    const { log, run } = await runTree(server, ["obedient"], []);
    const stopped = (pid: number) => seen(pid)?.state === "T";
    run.signal("SIGTSTP");
    await until(() => stopped(run.pid) && log.pids.every(stopped), 20_000, "the stop");
    run.signal("SIGCONT");
    await until(() => log.pids.every((pid) => !stopped(pid)), 20_000, "the continuation");
    run.signal("SIGTERM");
    expect(await run.exit()).toBe(143);
  });
});

describe("waiting", () => {
  test("it says that it waits, and for whom, and runs when it is its turn", async () => {
    const server = await memoryServer();
    const holder = await connect(server.address, { owner: "somebody else" });
    onTestFinished(() => holder.close());
    const lock = await holder.acquire(LOCK);
    const run = new Run(server, [LOCK, "true"]);
    await until(() => run.stderr !== "", 20_000, "the notice");
    expect(run.stderr).toMatch(/^leasehold run: waiting for nightly\/report, held by somebody else for .*\n$/);
    await lock.release();
    expect(await run.exit()).toBe(0);
  });

  test("it says that it waits where it may not see for whom", async () => {
    const { server, credentials } = await acquireOnly();
    const holder = new Run(server, [
      ...credentials,
      "app/a",
      ...node("console.log('holds'); setInterval(() => {}, 1_000)"),
    ]);
    await holder.saysOnStdout("holds");
    const run = new Run(server, [...credentials, "app/a", "true"]);
    await until(() => run.stderr !== "", 20_000, "the notice");
    expect(run.stderr).toBe("leasehold run: waiting for app/a\n");
    holder.signal("SIGTERM");
    expect(await run.exit()).toBe(0);
  });

  test.each([
    { flags: ["-n"], code: 75 },
    { flags: ["--try", "-E", "0"], code: 0 },
    { flags: ["-w", "50ms"], code: 75 },
    { flags: ["--wait", "0"], code: 75 },
    { flags: ["-w50ms", "--busy-code=3"], code: 3 },
  ])("$flags on a busy lock: exit code $code", async ({ flags, code }) => {
    const server = await memoryServer();
    await (await client(server)).acquire(LOCK);
    const run = new Run(server, [...flags, LOCK, "--", "echo", "ran"]);
    expect(await run.exit()).toBe(code);
    expect(run.stdout).toBe("");
    expect(run.stderr).toContain("is held by");
  });
});

describe("without a command", () => {
  test("it prints the token and holds the lock until it is signalled", async () => {
    const server = await memoryServer();
    const run = new Run(server, [LOCK]);
    await run.saysOnStdout("\n");
    const observer = await client(server);
    expect((await observer.describe(LOCK)).holders.map((holder) => `${holder.token}\n`)).toEqual([run.stdout]);
    run.signal("SIGTERM");
    expect(await run.exit()).toBe(0);
    expect((await observer.describe(LOCK)).holders).toEqual([]);
  });

  test("it ends when the lock is lost", async () => {
    const server = await memoryProcess();
    const run = new Run(server, [LOCK]);
    await run.saysOnStdout("\n");
    await server.kill();
    await server.restart();
    expect(await run.exit()).toBe(79);
    expect(run.stderr).toMatch(/^leasehold run: lost nightly\/report: .+$/m);
  });
});

describe("the command does not outlive the lock", () => {
  test("a server that has forgotten the lock", async () => {
    const server = await memoryProcess();
    const { log, run } = await runTree(server, ["stubborn", "stubborn"], ["--ttl", "30s", "--kill-after", "300ms"]);
    await server.kill();
    await server.restart();
    expect(await run.exit()).toBe(79);
    expect(log.alive).toEqual([]);
    expect(run.stderr).toMatch(
      /^leasehold run: lost nightly\/report: the server does not know it any more: the command was ended$/m,
    );
  });

  test("a server that is gone", async () => {
    const server = await memoryProcess();
    const { log, run } = await runTree(server, ["stubborn", "stubborn"]);
    await server.kill();
    expect(await run.exit()).toBe(79);
    expect(log.alive).toEqual([]);
    expect(run.stderr).toMatch(/lost nightly\/report: it .*renewed in time: the command was ended/);
  });

  test("a server that stalls", async () => {
    const server = await memoryProcess();
    const { log, run } = await runTree(server, ["stubborn", "stubborn"]);
    server.signal("SIGSTOP");
    await until(() => log.alive.length === 0, 20_000, "the end of the command");
    server.signal("SIGCONT");
    expect(await run.exit()).toBe(79);
  });

  test("supervisor stopped past the TTL: dead before the next is granted", async () => {
    const server = await memoryServer();
    const { log, run } = await runTree(server, ["stubborn", "stubborn", "session"]);
    const { granted } = await aliveAtNextGrant(server, log);
    run.signal("SIGSTOP");
    expect(await granted).toEqual([]);
    expect(run.ended).toBe(false);
    run.signal("SIGCONT");
    expect(await run.exit()).toBe(79);
  });

  test("supervisor killed: dead before the next is granted", async () => {
    const server = await memoryServer();
    const { log, run } = await runTree(server, ["stubborn", "stubborn", "session"]);
    const { granted } = await aliveAtNextGrant(server, log);
    const { guardian } = run;
    run.signal("SIGKILL");
    expect(await granted).toEqual([]);
    await until(() => !alive(guardian), 20_000, "the end of the guardian");
  });

  test("guardian killed: dead before the next is granted, which is at once", async () => {
    const server = await memoryServer();
    const { log, run } = await runTree(server, ["stubborn", "stubborn", "session"]);
    const { granted } = await aliveAtNextGrant(server, log);
    process.kill(run.guardian, "SIGKILL");
    expect(await granted).toEqual([]);
    expect(await run.exit()).toBe(79);
    expect(run.stderr).toContain("the guardian process is gone or does not answer: the command was ended");
  });

  test("guardian stopped: dead before the next is granted", async () => {
    const server = await memoryServer();
    const { log, run } = await runTree(server, ["stubborn"]);
    const { granted } = await aliveAtNextGrant(server, log);
    process.kill(run.guardian, "SIGSTOP");
    expect(await granted).toEqual([]);
    expect(await run.exit()).toBe(79);
  });

  test("a supervisor under another one: the inner command ends with the outer lock", async () => {
    const server = await memoryServer();
    const log = new TreeLog(await temporaryFolder());
    const inner = ["run", "inner", "--", process.execPath, tree, log.folder, "stubborn"];
    const run = new Run(server, [...SHORT, LOCK, "--", process.execPath, program, ...inner]);
    onTestFinished(() => {
      for (const pid of log.alive) process.kill(pid, "SIGKILL");
    });
    await until(() => log.pids.length === 1, 20_000, "the start of the command");
    const { granted } = await aliveAtNextGrant(server, log);
    run.signal("SIGKILL");
    expect(await granted).toEqual([]);
  });

  test("it lives on past many TTLs while all is well, and a restart of a durable server does not end it", async () => {
    const server = await ServerProcess.start(`level:${await temporaryFolder()}`);
    const { log, run } = await runTree(server, ["obedient"], ["--ttl", "5s", "--kill-after", "300ms"]);
    await server.kill();
    await server.restart();
    const observer = await client(server);
    const validUntil = async () => (await observer.describe(LOCK)).holders[0]?.heldMs ?? 0;
    await until(async () => (await validUntil()) > 7_000, 20_000, "more than a TTL");
    expect(log.alive).toEqual(log.pids);
    run.signal("SIGTERM");
    expect(await run.exit()).toBe(143);
    expect(childrenOf(run.pid)).toEqual([]);
  });
});

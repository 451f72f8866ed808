/** `leasehold run` with shared locks, permits, a maximum hold, a lock delay; and when its lock is taken away. */
import { describe, expect, test } from "vitest";
import { leasehold } from "../cli/support.js";
import { memoryServer } from "../e2e/in-process.js";
import { until } from "../e2e/support.js";
import { aliveAtNextGrant, client, LOCK, node, Run, runTree, SHORT } from "./support.js";

const waits = "process.stdin.resume(); console.log('slot ' + process.env.LEASEHOLD_SLOT)";

const force = (server: { address: string }, ...flags: string[]) =>
  leasehold(["release", LOCK, "--force", "--yes", ...flags, "--addr", server.address]);

describe("more than one holder", () => {
  test("--shared: together with others who say so, and with nobody else", async () => {
    const server = await memoryServer();
    const readers = ["-s", "--shared"].map((flag) => new Run(server, [flag, LOCK, ...node(waits)]));
    for (const reader of readers) await reader.saysOnStdout("slot undefined");
    expect(await new Run(server, ["-n", LOCK, "true"]).exit()).toBe(75);
    for (const reader of readers) reader.input("");
    for (const reader of readers) expect(await reader.exit()).toBe(0);
    expect(await new Run(server, ["-n", LOCK, "true"]).exit()).toBe(0);
  });

  test("--permits: as many as there are, each with its slot", async () => {
    const server = await memoryServer();
    const permits = ["--permits", "3"];
    const outer = { LEASEHOLD_SLOT: "7" };
    const two = new Run(server, [...permits, "--take", "2", LOCK, ...node(waits)], outer);
    await two.saysOnStdout("slot 0,1\n");
    const one = new Run(server, [...permits, LOCK, ...node(waits)]);
    await one.saysOnStdout("slot 2\n");
    const none = new Run(server, ["-n", ...permits, LOCK, "true"]);
    expect(await none.exit()).toBe(75);
    two.input("");
    expect(await two.exit()).toBe(0);
    const inner = new Run(server, ["-n", ...permits, LOCK, ...node(waits)]);
    await inner.saysOnStdout("slot 0\n");
    for (const run of [one, inner]) run.input("");
    expect([await one.exit(), await inner.exit()]).toEqual([0, 0]);
    const exclusive = new Run(server, ["-n", LOCK, ...node(waits)], outer);
    exclusive.input("");
    expect([await exclusive.exit(), exclusive.stdout]).toEqual([0, "slot undefined\n"]);
  });
});

describe("a maximum hold", () => {
  const flags = ["--ttl", "60s", "--kill-after", "300ms", "--max-hold", "3s"];

  test("the command is ended before it is over, and dead at the next grant", async () => {
    const server = await memoryServer();
    const { log, run } = await runTree(server, ["stubborn", "stubborn", "session"], flags);
    const { granted } = await aliveAtNextGrant(server, log);
    expect(await granted).toEqual([]);
    expect(await run.exit()).toBe(79);
    expect(run.stderr).toMatch(
      /^leasehold run: lost nightly\/report: its maximum hold is over: the command was ended$/m,
    );
  });

  test("the guardian keeps to it, too, when the supervisor is stopped", async () => {
    const server = await memoryServer();
    const { log, run } = await runTree(server, ["stubborn"], flags);
    const { granted } = await aliveAtNextGrant(server, log);
    run.signal("SIGSTOP");
    expect(await granted).toEqual([]);
    run.signal("SIGCONT");
    expect(await run.exit()).toBe(79);
  });
});

describe("a forced release", () => {
  test("ends the command; the next grant waits for that, and for no longer", async () => {
    const server = await memoryServer();
    const flags = ["--ttl", "10m", "--kill-after", "300ms"];
    const { log, run } = await runTree(server, ["stubborn", "stubborn", "session"], flags);
    const { granted } = await aliveAtNextGrant(server, log);
    const released = force(server, "--reason", "it hangs");
    expect(await granted).toEqual([]); // not after ten minutes: it was confirmed
    expect(await run.exit()).toBe(79);
    expect(log.asked).toEqual(expect.arrayContaining([log.pids[0]]));
    expect(run.stderr).toMatch(/lost nightly\/report: an administrator took it away: the command was ended$/m);
    expect(await released).toEqual({
      code: 0,
      stdout: expect.stringMatching(/^nightly\/report: being taken away from token 1 \(.+\), within .+\ngone\n$/),
      stderr: "",
    });
  });

  test("without a command: it is confirmed at once", async () => {
    const server = await memoryServer();
    const run = new Run(server, ["--ttl", "10m", LOCK]);
    await run.saysOnStdout("1\n");
    expect((await force(server)).stdout).toContain("gone\n");
    expect(await run.exit()).toBe(79);
    expect(run.stderr).toBe("leasehold run: lost nightly/report: an administrator took it away\n");
  });

  test("of a holder that is stopped: the next grant waits until nothing is promised any more", async () => {
    const server = await memoryServer();
    const { log, run } = await runTree(server, ["stubborn"]);
    const { granted } = await aliveAtNextGrant(server, log);
    run.signal("SIGSTOP");
    const { stdout } = await force(server);
    expect(stdout).toContain("gone\n");
    expect(await granted).toEqual([]);
    run.signal("SIGCONT");
    expect(await run.exit()).toBe(79);
  });

  test("--now: the next is granted at once, and the command ended all the same", async () => {
    const server = await memoryServer();
    const { log, run } = await runTree(server, ["obedient"], ["--ttl", "10m"]);
    const { granted } = await aliveAtNextGrant(server, log);
    expect((await force(server, "--now")).stdout).toMatch(/^nightly\/report: ended token 1 \(.+\)\n$/);
    await granted;
    expect(await run.exit()).toBe(79);
    expect(log.alive).toEqual([]);
  });
});

test("--lock-delay: a lock that was lost stays free for a while, one that was released does not", async () => {
  const server = await memoryServer();
  const observer = await client(server);
  const clean = new Run(server, ["--lock-delay", "10m", LOCK, "true"]);
  expect(await clean.exit()).toBe(0);
  expect((await observer.describe(LOCK)).delayRemainingMs).toBe(0);
  const run = new Run(server, [...SHORT, "--lock-delay", "10m", LOCK]);
  await run.saysOnStdout("\n");
  run.signal("SIGKILL");
  await until(async () => (await observer.describe(LOCK)).delayRemainingMs > 0, 20_000, "the lock delay");
  const { stdout } = await leasehold(["locks", "--addr", server.address]);
  expect(stdout).toMatch(/^nightly\/report .* \(delayed for \d+m(\d+s)?\) /m);
});

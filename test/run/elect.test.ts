/** `leasehold elect` against a real server. */
import { expect, onTestFinished, test } from "vitest";
import { leasehold } from "../cli/support.js";
import { type Address, memoryServer } from "../e2e/in-process.js";
import { ServerProcess, temporaryFolder, until } from "../e2e/support.js";
import { alive, childrenOf } from "./processes.js";
import { client, LOCK, memoryProcess, node, Run, SHORT } from "./support.js";

const elect = (server: { address: string }, args: readonly string[]) => new Run(server, args, {}, "elect");

/** Says that it leads, and with which token; ends with its standard input, by exit code 5. */
const leads =
  "const { LEASEHOLD_LOCK: name, LEASEHOLD_TOKEN: token } = process.env;" +
  "console.log(['leads', name, token, process.pid].join(' '));" +
  "process.stdin.on('end', () => process.exit(5)).resume()";

/** The process id of the command in its latest term, of which there have been so many. */
async function commandOf(run: Run, terms: number): Promise<number> {
  const found = () => [...run.stdout.matchAll(/^leads nightly\/report \d+ (\d+)$/gm)];
  await until(() => found().length === terms, 20_000, `term ${terms} (${run.stderr})`);
  return Number(found()[terms - 1]?.[1]);
}

const waiters = (server: Address, count: number) => async () =>
  (await (await client(server)).describe(LOCK)).waitersTotal === count;

test("one leads, with its value for all to see; when its command ends, so does it, and the next one leads", async () => {
  const server = await memoryServer();
  const first = elect(server, ["--value", "10.0.0.7", LOCK, ...node(leads)]);
  await first.saysOnStdout("leads nightly/report 1 ");
  const second = elect(server, [LOCK, "--value=10.0.0.8", ...node(leads)]);
  await until(waiters(server, 1), 20_000, "the second candidate");
  const observer = await client(server);
  expect(Buffer.from((await observer.describe(LOCK)).holders[0]?.metadata ?? []).toString()).toBe("10.0.0.7");
  expect(second.stdout).toBe("");
  first.input("");
  expect(await first.exit()).toBe(5);
  await second.saysOnStdout("leads nightly/report 2 ");
  second.input("");
  expect([await second.exit(), second.stderr]).toEqual([5, "leasehold elect: leading nightly/report, token 2\n"]);
});

test("who loses the lead ends its command and stands again", async () => {
  const server = await memoryServer();
  const first = elect(server, ["--ttl", "10m", LOCK, ...node(leads)]);
  const pid = await commandOf(first, 1);
  const second = elect(server, ["--ttl", "10m", LOCK, ...node(leads)]);
  await until(waiters(server, 1), 20_000, "the second candidate");
  const args = ["release", LOCK, "--force", "--yes", "--addr", server.address];
  expect((await leasehold(args)).stdout).toContain("gone\n");
  expect(alive(pid)).toBe(false);
  await commandOf(second, 1);
  await until(waiters(server, 1), 20_000, "the first one's next candidacy");
  second.input("");
  expect(await second.exit()).toBe(5);
  await commandOf(first, 2);
  first.input("");
  expect(await first.exit()).toBe(5);
  expect(first.stderr).toContain("an administrator took it away: the command was ended\n");
});

test("a server that restarts ends nobody's lead", async () => {
  const server = await ServerProcess.start(`level:${await temporaryFolder()}`);
  const run = elect(server, [LOCK, ...node(leads)]);
  const pid = await commandOf(run, 1);
  for (let round = 0; round < 2; round++) {
    await server.kill();
    await server.restart();
    const observer = await client(server);
    await until(async () => (await observer.describe(LOCK)).holders[0]?.token === 1, 20_000, "the lead");
  }
  expect(alive(pid)).toBe(true);
  run.input("");
  expect(await run.exit()).toBe(5);
});

test("a server that is gone: the command ends in time, and leads again when the server is back", async () => {
  const server = await ServerProcess.start(`level:${await temporaryFolder()}`);
  const run = elect(server, [...SHORT, LOCK, ...node(leads)]);
  const pid = await commandOf(run, 1);
  await server.kill();
  await until(() => !alive(pid), 20_000, "the end of the command");
  await server.restart();
  await commandOf(run, 2);
  expect(run.stderr).toMatch(/^leasehold elect: lost nightly\/report: .+: the command was ended$/m);
  run.signal("SIGTERM");
  expect(await run.exit()).toBe(143);
});

test("a server with another store: the command ends, and nobody stands there again", async () => {
  const server = await memoryProcess();
  const run = elect(server, [LOCK, ...node(leads)]);
  const pid = await commandOf(run, 1);
  await server.kill();
  await server.restart();
  expect(await run.exit()).toBe(78);
  expect(alive(pid)).toBe(false);
  expect(run.stderr).toMatch(/^leasehold elect: the client comes from cluster /m);
});

test.each([
  { signal: "SIGTERM", code: 143 },
  { signal: "SIGINT", code: 130 },
] as const)("$signal ends the leader by its command, and a candidate at once", async ({ signal, code }) => {
  const server = await memoryServer();
  const leader = elect(server, [LOCK, ...node(leads)]);
  await commandOf(leader, 1);
  const candidate = elect(server, [LOCK, ...node(leads)]);
  await until(waiters(server, 1), 20_000, "the candidate");
  candidate.signal(signal);
  expect(await candidate.exit()).toBe(code);
  leader.signal(signal);
  expect(await leader.exit()).toBe(code);
  const observer = await client(server);
  expect(await observer.describe(LOCK)).toMatchObject({ holders: [], waitersTotal: 0 });
});

test("a command that will not end when asked is ended with the lead, and then nobody stands again", async () => {
  const server = await memoryServer();
  const stubborn = `process.on("SIGTERM", () => console.log("asked")); ${leads}`;
  const run = elect(server, ["--kill-after", "300ms", LOCK, ...node(stubborn)]);
  await commandOf(run, 1);
  run.signal("SIGTERM");
  await run.saysOnStdout("asked");
  await leasehold(["release", LOCK, "--force", "--yes", "--addr", server.address]);
  expect(await run.exit()).toBe(143);
});

test("a guardian that is gone ends the command; the next term has another one", async () => {
  const server = await memoryServer();
  const run = elect(server, [LOCK, ...node(leads)]);
  const pid = await commandOf(run, 1);
  process.kill(run.guardian, "SIGKILL");
  const next = await commandOf(run, 2);
  expect([alive(pid), alive(next)]).toEqual([false, true]);
  expect(childrenOf(run.pid)).toHaveLength(1);
  onTestFinished(() => run.signal("SIGKILL"));
});

test.each([
  { args: [LOCK], code: 64, says: "leasehold elect: there is no command to run" },
  { args: [LOCK, "--valu", "x", "true"], code: 64, says: '"--valu" (Did you mean --value?)' },
  { args: ["--value", "x".repeat(5_000), LOCK, "true"], code: 64, says: "metadata" },
  { args: [LOCK, "no-such-command"], code: 127, says: "leasehold elect: no-such-command: not found" },
  { args: ["--addr", "127.0.0.1:1", LOCK, "true"], code: 69, says: "cannot reach 127.0.0.1:1" },
])("$args.0 $args.1: exit code $code", async ({ args, code, says }) => {
  const server = await memoryServer();
  const run = elect(server, args);
  expect([await run.exit(), run.stderr]).toEqual([code, expect.stringContaining(says)]);
});

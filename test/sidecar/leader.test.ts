/** `leasehold sidecar --elect`: several of them, with commands, and with faults. */
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { acquireOnly } from "../cli/acquire-only.js";
import { leasehold } from "../cli/support.js";
import { memoryServer } from "../e2e/in-process.js";
import { ServerProcess, temporaryFolder, until } from "../e2e/support.js";
import { alive } from "../run/processes.js";
import { client } from "../run/support.js";
import { SidecarProcess } from "./support.js";

const SHORT = ["--ttl", "2s", "--kill-after", "300ms"];

interface Leading {
  readonly name: string;
  readonly isLeader: boolean;
  readonly token: number | null;
  readonly since: string | null;
  readonly leader: { readonly token: number; readonly owner: string; readonly value: string } | null;
}

const leading = async (sidecar: SidecarProcess) => (await sidecar.ask<Leading>("GET", "/leader")).body;
const leads = (sidecar: SidecarProcess) => async () => (await leading(sidecar)).isLeader;

/** What the commands of a sidecar have written: "elected 1 4711 begins", in the order in which it was written. */
class Journal {
  private constructor(readonly path: string) {}

  static async open(): Promise<Journal> {
    return new Journal(join(await temporaryFolder(), "journal"));
  }

  get lines(): string[] {
    return existsSync(this.path) ? readFileSync(this.path, "utf8").split("\n").filter(Boolean) : [];
  }

  /** Shell: says so if the command that was elected last still runs. */
  get overlap(): string {
    const last = `$(grep elected ${this.path} | tail -n 1 | cut -d " " -f 3)`;
    return `if kill -0 "${last}"; then echo overlap >> ${this.path}; fi`;
  }

  /** A command that says when it begins and, `after` the shell has done that, when it ends. */
  command(word: string, after: string): string {
    const say = (what: string) => `echo "${word} $LEASEHOLD_TOKEN $$ ${what}" >> ${this.path}`;
    return JSON.stringify(["/bin/sh", "-c", `${say("begins")}; ${after}; ${say("ends")}`]);
  }
}

const elect = (server: { address: string }, ...flags: string[]) =>
  SidecarProcess.start(server, "--elect", "billing", ...flags);

test("one leads, the other tells who; killed with -9, the leader is succeeded when its TTL is over", async () => {
  const server = await memoryServer();
  const first = await elect(server, ...SHORT, "--value", "10.0.0.7");
  await until(leads(first));
  const second = await elect(server, ...SHORT, "--value", "10.0.0.8");
  await until(async () => (await leading(second)).leader?.value === "10.0.0.7");
  expect(await leading(second)).toMatchObject({ name: "billing", isLeader: false, token: null, since: null });
  expect(await leading(first)).toMatchObject({ isLeader: true, token: 1, leader: { token: 1, value: "10.0.0.7" } });
  expect((await leading(first)).since).toMatch(/^\d{4}-\d\d-\d\dT/);
  first.signal("SIGKILL");
  await until(leads(second));
  expect((await leading(second)).token).toBeGreaterThan(1);
  await until(async () => (await leading(second)).leader?.value === "10.0.0.8");
});

test("asked to stop, it resigns: the next one leads at once", async () => {
  const server = await memoryServer();
  const first = await elect(server, "--ttl", "10m");
  await until(leads(first));
  const second = await elect(server, "--ttl", "10m");
  first.signal("SIGTERM");
  expect(await first.exit()).toBe(0);
  await until(leads(second), 5_000, "the next leader, long before the TTL");
});

test("under a policy that lets it stand for election and not see who leads, it leads, and says once what it cannot", async () => {
  const { server, credentials, denied } = await acquireOnly();
  const sidecar = await SidecarProcess.start(server, ...credentials, "--elect", "app/leader", "--ready-when", "leader");
  await until(leads(sidecar));
  await until(() => sidecar.log.includes("who leads is not known"), 20_000, "the warning");
  expect(await leading(sidecar)).toMatchObject({ isLeader: true, token: 1, leader: null });
  expect((await sidecar.ask("GET", "/readyz")).status).toBe(200);
  expect(denied().length).toBe(1);
});

test("--ready-when: connected is the default, leader means leading", async () => {
  const server = await memoryServer();
  const leader = await elect(server, "--ready-when", "leader");
  await until(leads(leader));
  const standby = await elect(server, "--ready-when", "leader");
  const connected = await elect(server);
  const ready = async (sidecar: SidecarProcess) => (await sidecar.ask("GET", "/readyz")).status;
  expect([await ready(leader), await ready(standby), await ready(connected)]).toEqual([200, 503, 200]);
  leader.signal("SIGTERM");
  await leader.exit();
  await until(async () => (await ready(standby)) === 200);
});

test("commands: elected while it leads, with its token; lost after it, before anybody else leads", async () => {
  const server = await memoryServer();
  const journal = await Journal.open();
  const first = await elect(
    server,
    ...["--on-elected", journal.command("elected", "sleep 1000"), "--on-lost", journal.command("lost", "true")],
  );
  await until(() => journal.lines.length === 1);
  const next = (await client(server)).campaign("billing");
  const linesAtNext = next.then(() => journal.lines);
  first.signal("SIGTERM");
  expect(await first.exit()).toBe(0);
  const [begun, lost, ended] = await linesAtNext;
  expect([begun, lost, ended]).toMatchObject([
    expect.stringMatching(/^elected 1 \d+ begins$/),
    expect.stringMatching(/^lost 1 \d+ begins$/),
    expect.stringMatching(/^lost 1 \d+ ends$/),
  ]);
  expect(alive(Number(begun?.split(" ")[2]))).toBe(false);
});

test("a term that flaps: the commands keep their order and never overlap", async () => {
  const server = await memoryServer();
  const journal = await Journal.open();
  const stubborn = 'trap "" TERM; sleep 1000 & wait $!; wait';
  const sidecar = await elect(
    server,
    ...["--kill-after", "200ms", "--on-elected", journal.command("elected", stubborn)],
    ...["--on-lost", journal.command("lost", `${journal.overlap}; sleep 0.2`)],
  );
  const rounds = 5;
  for (let round = 1; round <= rounds; round++) {
    await until(() => journal.lines.filter((line) => /^elected .* begins$/.test(line)).length === round);
    await leasehold(["release", "billing", "--force", "--yes", "--now", "--addr", server.address]);
  }
  await until(() => journal.lines.filter((line) => /^lost .* ends$/.test(line)).length === rounds);
  await until(leads(sidecar));
  const words = journal.lines.slice(0, 3 * rounds).map((line) => line.replace(/ \d+ \d+ /, " "));
  expect(words).toEqual(Array.from({ length: rounds }, () => ["elected begins", "lost begins", "lost ends"]).flat());
  const tokens = journal.lines.map((line) => Number(line.split(" ")[1]));
  expect(tokens).toEqual([...tokens].sort((a, b) => a - b));
});

test.each(["SIGKILL", "SIGSTOP"] as const)(
  "%s of the sidecar ends the command before anybody else leads",
  async (signal) => {
    const server = await memoryServer();
    const journal = await Journal.open();
    const sidecar = await elect(server, ...SHORT, "--on-elected", journal.command("elected", "sleep 1000"));
    await until(() => journal.lines.length === 1);
    const pid = Number(journal.lines[0]?.split(" ")[2]);
    expect(alive(pid)).toBe(true);
    const next = (await client(server)).campaign("billing").then(() => alive(pid));
    sidecar.signal(signal);
    expect(await next).toBe(false);
  },
);

test("a command that fails or does not exist costs nobody the lead, and is told", async () => {
  const server = await memoryServer();
  const failing = await elect(server, "--on-elected", "/bin/false", "--on-lost", "/no/such/program");
  await until(() => failing.log.includes('"the command failed"'));
  expect((await leading(failing)).isLeader).toBe(true);
  await leasehold(["release", "billing", "--force", "--yes", "--now", "--addr", server.address]);
  await until(() => failing.log.includes("ENOENT"));
  await until(leads(failing));
});

test("a restart of the server costs nobody the lead", async () => {
  const server = await ServerProcess.start(`level:${await temporaryFolder()}`);
  const sidecar = await elect(server, "--ttl", "10s");
  await until(leads(sidecar));
  await server.kill();
  await server.restart();
  await until(async () => (await sidecar.ask("GET", "/readyz")).status === 200);
  expect(await leading(sidecar)).toMatchObject({ isLeader: true, token: 1 });
});

// What `leasehold restore` asks on a terminal, and what it makes of the answers. The terminal is that of `script`, which
// belongs to every Debian and most other systems.
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { connect } from "@leasehold/client";
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from "vitest";
import { defaultConfig, startServer } from "../../src/server/index.js";
import { ServerProcess, temporaryFolder, until } from "../e2e/support.js";
import { environment, leasehold, program } from "./support.js";

const hasTerminals = process.platform === "linux" && spawnSync("script", ["--version"]).status === 0;
const title = `questions on a terminal${hasTerminals ? "" : " (skipped: there is no `script` of util-linux)"}`;
const END = "\u0004";

let backup = "";
let lastToken = 0;

interface Talk {
  readonly code: number | null;
  readonly text: string;
}

/** Runs a command on a terminal, and gives each answer when its question is there. */
async function talk(
  args: readonly string[],
  ...dialog: readonly (readonly [question: string, answer: string])[]
): Promise<Talk> {
  const command = [process.execPath, program, ...args].map((word) => `'${word}'`).join(" ");
  const child = spawn("script", ["-qec", command, "/dev/null"], {
    env: environment(),
    stdio: ["pipe", "pipe", "inherit"],
  });
  onTestFinished(() => void child.kill("SIGKILL"));
  let text = "";
  child.stdout.on("data", (chunk) => {
    text += chunk;
  });
  const exited = once(child, "exit") as Promise<[number | null]>;
  let from = 0;
  for (const [question, answer] of dialog) {
    await until(() => text.includes(question, from), 20_000, `the question "${question}" in ${JSON.stringify(text)}`);
    from = text.indexOf(question, from) + question.length;
    child.stdin.write(answer);
  }
  const [code] = await exited;
  return { code, text };
}

const ADVANCE = "Advance the tokens by how many? [1000000000] ";
const STOPPED = "Are all clients stopped that were running before? [y/N] ";
const SURE = "[y/N] ";

describe.skipIf(!hasTerminals)(title, () => {
  let folder = "";
  afterAll(() => rm(folder, { recursive: true, force: true }));
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), "leasehold-questions-"));
    backup = join(folder, "backup");
    const server = await startServer(
      defaultConfig({ store: `level:${folder}/data`, listen: "127.0.0.1:0", opsListen: "none" }),
    );
    const client = await connect(server.address);
    lastToken = (await client.acquire("a")).token;
    expect(await leasehold(["backup", backup, "--addr", server.address])).toMatchObject({ code: 0 });
    await client.close();
    await server.stop();
  });

  const into = async () => join(await temporaryFolder(), "store");
  const restore = (store: string, ...dialog: Parameters<typeof talk>[1][]) =>
    talk(["restore", backup, "--store", `level:${store}`], ...dialog);

  it("explains, suggests, and does what it said when it is told to", async () => {
    const store = await into();
    const { code, text } = await restore(store, [ADVANCE, "\n"], [STOPPED, "y\n"], [SURE, "yes\n"]);
    expect(text).toContain(`Tokens granted after the backup are above ${lastToken}, and must not be granted again.`);
    expect(text).toContain(`go on at token ${lastToken + 1_000_000_001} and grant locks at once? [y/N]`);
    expect([code, text]).toEqual([0, expect.stringMatching(new RegExp(`first token +${lastToken + 1_000_000_001}\r`))]);
    const server = await ServerProcess.start(`level:${store}`);
    const client = await connect(server.address);
    onTestFinished(() => client.close());
    expect((await client.acquire("b")).token).toBe(lastToken + 1_000_000_001);
  });

  it("takes clients for running unless it is told otherwise, and asks again when that ends", async () => {
    const store = await into();
    const { code, text } = await restore(store, [ADVANCE, "5,000\n"], [STOPPED, "\n"], [SURE, "y\n"]);
    expect(text).toContain(`go on at token ${lastToken + 5_001} and grant nothing for`);
    expect(text).toMatch(/grants +when the server has run for/);
    expect(code).toBe(0);
    const end = ["restore", "--end-quiet", "--store", `level:${store}`];
    const question = "Are all clients stopped that were running before the restore? [y/N] ";
    expect(await talk(end, [question, "n\n"])).toMatchObject({
      code: 1,
      text: expect.stringContaining("nothing was changed"),
    });
    expect(await talk(end, [question, "y\n"])).toMatchObject({
      code: 0,
      text: expect.stringContaining("ended: the server grants"),
    });
    expect(await talk(end, [question, "y\n"])).toMatchObject({
      code: 0,
      text: expect.stringContaining("grants locks already"),
    });
  });

  const declined: [string, ...Parameters<typeof talk>[1][]][] = [
    ["no number", [ADVANCE, "many\n"]],
    ["no answer", [ADVANCE, END]],
    ["no answer whether clients are stopped", [ADVANCE, "\n"], [STOPPED, END]],
    ["no", [ADVANCE, "\n"], [STOPPED, "n\n"], [SURE, "\n"]],
    ["no answer in the end", [ADVANCE, "\n"], [STOPPED, "y\n"], [SURE, END]],
  ];
  it.each(declined)("restores nothing after %s", async (_, ...dialog) => {
    const store = await into();
    expect(await restore(store, ...dialog)).toMatchObject({
      code: 1,
      text: expect.stringContaining("nothing was restored"),
    });
    expect(existsSync(store)).toBe(false);
  });
});

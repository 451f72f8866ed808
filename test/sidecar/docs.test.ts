/** What docs/sidecar.md shows is what happens: every command and every program of it is run, in order. */
import { execFile } from "node:child_process";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { Pod } from "kubernetes-models/v1";
import { expect, test } from "vitest";
import { parse } from "yaml";
import { environment } from "../cli/support.js";
import { memoryServer } from "../e2e/in-process.js";
import { root, until } from "../e2e/support.js";
import { SidecarProcess } from "./support.js";

const page = readFileSync(join(root, "docs/sidecar.md"), "utf8");
const blocks = (language: string): string[] =>
  [...page.matchAll(new RegExp(`^\`\`\`${language}\\n([\\s\\S]*?)^\`\`\``, "gm"))].map(([, code]) => code as string);

interface Shown {
  readonly command: string;
  readonly output: readonly string[];
}

/** The curl commands of the page, with what it shows below them. */
const commands: Shown[] = blocks("console").flatMap((block) =>
  block
    .split(/^\$ /m)
    .slice(1)
    .map((part) => part.trimEnd().split("\n"))
    .map(([command = "", ...output]) => ({ command, output }))
    .filter(({ command }) => command.startsWith("curl ")),
);

function run(file: string, args: readonly string[]): Promise<{ code: unknown; stdout: string; stderr: string }> {
  return new Promise((resolve) => {
    execFile(file, args, { env: environment(), timeout: 30_000 }, (error, stdout, stderr) => {
      resolve({ code: error?.code ?? 0, stdout, stderr });
    });
  });
}

/** A value with the kinds of its parts instead of the parts. */
function shape(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(shape).slice(0, 1);
  if (typeof value === "object" && value !== null) {
    return Object.fromEntries(Object.entries(value).map(([key, part]) => [key, shape(part)]));
  }
  return typeof value;
}

const shapes = (lines: readonly string[]) => lines.map((line) => shape(JSON.parse(line)));

test("the commands do what the page shows", async () => {
  const server = await memoryServer();
  const sidecar = await SidecarProcess.start(server);
  const elections = await memoryServer();
  const leader = await SidecarProcess.start(elections, "--elect", "billing", "--value", "vm:8080");
  await until(async () => (await leader.ask("GET", "/leader")).body.leader !== null);
  expect(commands.length).toBeGreaterThanOrEqual(9);
  for (const { command, output } of commands) {
    const { address } = command.includes("/leader") ? leader : sidecar;
    const { code, stdout, stderr } = await run("/bin/sh", ["-c", command.replaceAll("127.0.0.1:7422", address)]);
    expect([0, 28], `${command}: ${stderr}`).toContain(code); // 28: its -m is over
    expect(shapes(stdout.trimEnd().split("\n")), command).toEqual(shapes(output));
  }
});

test.each([
  ["bash", ["bash", "-c"], /^working with token \d+\n$/],
  ["python", ["python3", "-c"], /^update orders set state = 'paid', token = (\d+) where id = 44 and token <= \1\n$/],
  ["js", ["node", "--input-type=module", "-e"], /^granted \d+\n$/],
] as const)("the program in %s works", async (language, [file, ...args], says) => {
  const server = await memoryServer();
  const sidecar = await SidecarProcess.start(server, "--ttl", "10m");
  const [program = ""] = blocks(language);
  const ended = await run(file, [...args, program.replaceAll("127.0.0.1:7422", sidecar.address)]);
  expect(ended.stdout, ended.stderr).toMatch(says);
  expect([ended.code, ended.stderr]).toEqual([0, ""]);
  await until(async () => (await sidecar.ask("GET", "/v1/holds")).body.total === 0, 5_000, "the release");
});

test("the pod is one that Kubernetes takes, and its flags are known", async () => {
  const [text = ""] = blocks("yaml");
  const pod = parse(text) as { spec: { initContainers: { args: string[] }[] } };
  expect(() => new Pod(pod as ConstructorParameters<typeof Pod>[0]).validate()).not.toThrow();
  const { stdout } = await run(process.execPath, [join(root, "dist/cli/main.js"), "sidecar", "--help"]);
  const flags = [...page.matchAll(/(?<![\w-])--[a-z][a-z-]+/g)].map(([flag]) => flag);
  for (const flag of new Set(flags)) expect(stdout, flag).toContain(flag);
  expect(pod.spec.initContainers[0]?.args[0]).toBe("sidecar");
});

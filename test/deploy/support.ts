/** The files below deploy/, and what a Dockerfile, a unit or a container tells the server to do. */
import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { expect } from "vitest";
import { OTHER_VARIABLES, options } from "../../src/server/config/catalog.js";
import { loadConfig } from "../../src/server/config/load.js";
import type { ServerConfig } from "../../src/server/config/schema.js";

export const root = fileURLToPath(new URL("../..", import.meta.url));

export const deployFile = (path: string): string => readFileSync(`${root}/deploy/${path}`, "utf8");

/** Whether there is such a program on the PATH. */
export const present = (program: string, argument = "--version"): boolean =>
  spawnSync(program, [argument]).error === undefined;

/** The configuration that these variables yield. Fails for a variable that has no meaning. */
export function configOf(env: Readonly<Record<string, string>>): ServerConfig {
  const known = [...options.map(({ variable }) => variable), ...OTHER_VARIABLES];
  for (const name of Object.keys(env)) if (name.startsWith("LEASEHOLD_")) expect(known).toContain(name);
  const result = loadConfig({ env });
  if (!result.ok) throw new Error(result.problems.join("\n"));
  const expected = result.config.insecure ? [expect.stringMatching(/neither encrypted .*permitted by insecure$/)] : [];
  expect(result.warnings).toEqual(expected);
  return result.config;
}

export interface Instruction {
  readonly name: string;
  readonly text: string;
}

/** The stages of a Dockerfile: comments gone, continued lines joined. */
export function stagesOf(dockerfile: string): Instruction[][] {
  const lines = dockerfile
    .replace(/^#.*\n/gm, "")
    .replace(/\\\n/g, " ")
    .split("\n");
  const stages: Instruction[][] = [[]];
  for (const line of lines.filter((text) => text.trim() !== "")) {
    const [, name = "", text = ""] = /^(\w+)\s+(.*)$/.exec(line) ?? [];
    if (name === "FROM") stages.push([]);
    stages.at(-1)?.push({ name, text });
  }
  return stages;
}

export const textsOf = (stage: readonly Instruction[], name: string): string[] =>
  stage.filter((instruction) => instruction.name === name).map(({ text }) => text);

/** What the last stage of the image sets. */
export function imageEnvironment(): Record<string, string> {
  const last = stagesOf(deployFile("docker/Dockerfile")).at(-1) ?? [];
  const pairs = textsOf(last, "ENV").flatMap((text) => [...text.matchAll(/(\w+)=(\S+)/g)]);
  return Object.fromEntries(pairs.map(([, name = "", value = ""]) => [name, value]));
}

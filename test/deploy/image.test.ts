// What the Dockerfile says. What comes of it is in image-run.test.ts.
import { existsSync } from "node:fs";
import { expect, it } from "vitest";
import { loadConfig } from "../../src/server/config/load.js";
import { configOf, deployFile, imageEnvironment, root, stagesOf, textsOf } from "./support.js";

const dockerfile = deployFile("docker/Dockerfile");
const stages = stagesOf(dockerfile);
const last = stages.at(-1) ?? [];

it("is built in stages, from one Node whose major version is pinned", () => {
  expect(stages[0]).toEqual([{ name: "ARG", text: expect.stringMatching(/^NODE=node:\d+-\w+-slim$/) }]);
  const bases = stages.slice(1).map((stage) => textsOf(stage, "FROM")[0]);
  // biome-ignore lint/suspicious/noTemplateCurlyInString: it is the Dockerfile's
  const node = "${NODE}";
  expect(bases).toEqual([`${node} AS manifests`, "manifests AS build", "manifests AS dependencies", node]);
});

it("installs what the lock file says and runs no script of a package", () => {
  const runs = stages.flatMap((stage) => textsOf(stage, "RUN")).filter((text) => /\bnpm\b/.test(text));
  const [build, compile, production] = runs;
  expect(runs).toHaveLength(3);
  for (const text of [build, production]) expect(text).toMatch(/^npm ci --ignore-scripts /);
  expect(compile).toBe("npm run build");
  expect(production).toContain("--omit=dev");
  expect(textsOf(last, "RUN").join()).not.toMatch(/npm|apt/);
});

it("copies what there is, and what the list of files to send lets through", () => {
  const sent = deployFile("docker/Dockerfile.dockerignore");
  const copies = stages.flatMap((stage) => textsOf(stage, "COPY")).filter((text) => !text.startsWith("--from"));
  for (const source of copies.flatMap((text) => text.split(/\s+/).slice(0, -1))) {
    expect(existsSync(`${root}/${source}`), source).toBe(true);
    const lets = sent.split("\n").some((line) => line.startsWith("!") && `${source}/`.startsWith(`${line.slice(1)}/`));
    expect(lets, source).toBe(true);
  }
  expect(sent).toMatch(/^\*$/m);
});

it("has no secret, and none can be handed to it while it is built", () => {
  expect(dockerfile).not.toMatch(/--mount=type=secret|_(TOKEN|PASSWORD|SECRET)\b/);
  expect(stages.flatMap((stage) => textsOf(stage, "ARG"))).toHaveLength(1);
});

it("does not serve in the clear before somebody has said so", () => {
  const result = loadConfig({ env: imageEnvironment() });
  const names = expect.stringContaining("LEASEHOLD_INSECURE=1");
  expect(result.ok ? [] : result.problems).toEqual([names, names]); // both ports
});

it("sets a configuration that is valid, keeps its data on the volume, and opens the ports that it names", () => {
  const config = configOf({ ...imageEnvironment(), LEASEHOLD_INSECURE: "1" });
  const [volume] = textsOf(last, "VOLUME");
  expect(config.store.startsWith(`level:${volume}/`)).toBe(true);
  const ports = [config.listen, config.opsListen].map((address) => address.split(":").at(-1));
  expect(textsOf(last, "EXPOSE")).toEqual([ports.join(" ")]);
});

it("does not run as root, and is looked at by Node, through no shell", () => {
  expect(last.at(-1)?.name).toBe("CMD");
  expect(textsOf(last, "USER")).toEqual([expect.stringMatching(/^[1-9]\d*:[1-9]\d*$/)]);
  const owner = textsOf(last, "RUN").find((text) => text.startsWith("install -d"));
  expect(owner).toMatch(/-o 1000 -g 1000 -m 0700 \/var\/lib\/leasehold$/);
  for (const name of ["ENTRYPOINT", "CMD"]) expect(textsOf(last, name)[0]).toMatch(/^\[".*"\]$/);
  expect(textsOf(last, "HEALTHCHECK")[0]).toMatch(/CMD \["node", "\/app\/healthcheck\.mjs"\]$/);
});

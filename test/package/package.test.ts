import { execFile } from "node:child_process";
import { cp, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, it } from "vitest";

const script = fileURLToPath(new URL("../../scripts/package-check.mjs", import.meta.url));
const clientFolder = fileURLToPath(new URL("../../src/client", import.meta.url));
const INSTALL_MS_MAX = 180_000;

function packageCheck(...args: string[]): Promise<{ code: number; output: string }> {
  return new Promise((resolve) => {
    execFile(process.execPath, [script, ...args], (error, stdout, stderr) => {
      resolve({ code: error === null ? 0 : Number(error.code), output: stdout + stderr });
    });
  });
}

describe("the packages as users get them", () => {
  let folder: string;
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), "leasehold-package-test-"));
  });
  afterAll(async () => {
    await rm(folder, { recursive: true, force: true });
  });

  /** A copy of the client's folder, as far as it is packed, with something wrong in it. */
  async function brokenClient(name: string, breakIt: (client: string) => Promise<void>): Promise<string> {
    const client = join(folder, name);
    await cp(join(clientFolder, "dist"), join(client, "dist"), { recursive: true });
    await cp(join(clientFolder, "package.json"), join(client, "package.json"));
    await breakIt(client);
    return client;
  }

  it("install, load and have types", { timeout: INSTALL_MS_MAX }, async () => {
    const { code, output } = await packageCheck();
    expect(code, output).toBe(0);
    for (const line of ["require() of the client gives connect", "import of the client gives connect"]) {
      expect(output).toContain(`ok  ${line}`);
    }
  });

  it("are refused when the client brings what only a server needs", { timeout: INSTALL_MS_MAX }, async () => {
    const client = await brokenClient("heavy", async (path) => {
      const manifest = JSON.parse(await readFile(join(path, "package.json"), "utf8"));
      manifest.dependencies.pino = "^10.4.0";
      await writeFile(join(path, "package.json"), JSON.stringify(manifest));
    });
    const { code, output } = await packageCheck("--client", client);
    expect(code).toBe(1);
    expect(output).toMatch(/NOT ok {2}the client installs without .*; found: pino/);
  });

  it("are refused when require() of the client does not work", { timeout: INSTALL_MS_MAX }, async () => {
    const client = await brokenClient("waiting", async (path) => {
      const index = join(path, "dist/index.js");
      await writeFile(index, `${await readFile(index, "utf8")}\nawait null;\n`);
    });
    const { code, output } = await packageCheck("--client", client);
    expect(code).toBe(1);
    expect(output).toMatch(/NOT ok {2}require\(\) of the client/);
  });
});

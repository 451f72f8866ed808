import { createHash } from "node:crypto";
import {
  chmodSync,
  existsSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { parseTokens } from "../../src/server/security/tokens.js";
import { leasehold } from "./support.js";

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "leasehold-token-"));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const at = (name: string) => join(folder, name);
const mode = (file: string) => statSync(file).mode & 0o777;
const hashOf = (token: string) => createHash("sha256").update(token).digest("hex");

describe("token new", () => {
  it("prints a token once, and its line for the server", async () => {
    const { code, stdout, stderr } = await leasehold(["token", "new", "ci"]);
    expect(code).toBe(0);
    expect(stdout).toMatch(/^lh_[\w-]{43}\n$/);
    expect(stderr).toBe(`The line for the server's file of tokens:\nci sha256:${hashOf(stdout.trim())}\n`);
    expect((await leasehold(["token", "new", "ci"])).stdout).not.toBe(stdout);
  });

  it("adds the line to a file, which only its owner can read", async () => {
    const file = at("tokens");
    const before = Date.now();
    const first = await leasehold(["token", "new", "ci", "--file", file, "--expires", "90d"]);
    const second = await leasehold(["token", "new", "ops", "--file", file, "--json"]);
    const made = JSON.parse(second.stdout) as { name: string; token: string; line: string; expiresAt: null };
    const entries = parseTokens(readFileSync(file, "utf8"));
    if (typeof entries === "string") throw new Error(entries);
    expect(entries.map(({ name, digest }) => [name, digest.toString("hex")])).toEqual([
      ["ci", hashOf(first.stdout.trim())],
      ["ops", hashOf(made.token)],
    ]);
    const lifeMs = (entries[0]?.expiresAtMs ?? 0) - before;
    expect(lifeMs).toBeGreaterThanOrEqual(90 * 86_400_000);
    expect(lifeMs).toBeLessThan(90 * 86_400_000 + 60_000);
    expect(made).toMatchObject({ name: "ops", expiresAt: null, line: expect.stringMatching(/^ops sha256:/) });
    expect(mode(file)).toBe(0o600);
    expect(readFileSync(file, "utf8")).not.toContain(made.token);
  });

  it("keeps what the file has: comments, permissions, a last line without an end, and a link to it", async () => {
    const [file, link] = [at("tokens"), at("link")];
    writeFileSync(file, `# ours\nci sha256:${"00".repeat(32)} # old`);
    chmodSync(file, 0o640);
    symlinkSync(file, link);
    expect((await leasehold(["token", "new", "ci", "--file", link])).code).toBe(0);
    expect(readFileSync(file, "utf8")).toMatch(/^# ours\nci sha256:0+ # old\nci sha256:[0-9a-f]{64}\n$/);
    expect(mode(file)).toBe(0o640);
    expect(readFileSync(link, "utf8")).toBe(readFileSync(file, "utf8"));
  });

  it("touches no file that a server would refuse, and none that somebody else is adding to", async () => {
    const file = at("tokens");
    writeFileSync(file, "nonsense\n");
    const broken = await leasehold(["token", "new", "ci", "--file", file]);
    expect(broken).toMatchObject({ code: 78, stdout: "", stderr: expect.stringContaining("line 1: ") });
    expect(readFileSync(file, "utf8")).toBe("nonsense\n");
    expect(existsSync(`${file}.new`)).toBe(false);
    writeFileSync(`${file}.new`, "");
    const busy = await leasehold(["token", "new", "ci", "--file", file]);
    expect(busy).toMatchObject({ code: 75, stdout: "", stderr: expect.stringContaining("somebody else is adding") });
  });

  it("loses none of those that are made at the same time", async () => {
    const file = at("tokens");
    const made = await Promise.all(Array.from({ length: 6 }, () => leasehold(["token", "new", "ci", "--file", file])));
    const tokens = made.filter(({ code }) => code === 0).map(({ stdout }) => hashOf(stdout.trim()));
    expect(made.every(({ code }) => code === 0 || code === 75)).toBe(true);
    expect(tokens.length).toBeGreaterThan(0);
    const entries = parseTokens(readFileSync(file, "utf8"));
    if (typeof entries === "string") throw new Error(entries);
    expect(new Set(entries.map(({ digest }) => digest.toString("hex")))).toEqual(new Set(tokens));
  });

  it("refuses names, times and files that are none", async () => {
    expect(await leasehold(["token", "new", "a b"])).toMatchObject({ code: 64, stdout: "" });
    expect(await leasehold(["token", "new", "ci", "--expires", "soon"])).toMatchObject({ code: 64, stdout: "" });
    expect(await leasehold(["token", "new", "ci", "--expires", "40000d"])).toMatchObject({ code: 64, stdout: "" });
    expect(await leasehold(["token", "new", "ci", "--file", at("no/such")])).toMatchObject({
      ...{ code: 64, stdout: "", stderr: expect.stringContaining("ENOENT") },
    });
  });
});

describe("token list", () => {
  it("tells names and ends, and no token", async () => {
    const file = at("tokens");
    writeFileSync(file, `ci sha256:${"ab".repeat(32)} expires=2020-01-31T00:00:00Z\nops sha256:${"cd".repeat(32)}\n`);
    expect((await leasehold(["token", "list", "--file", file])).stdout).toBe(
      "name  hash          expires\n" +
        "ci    abababababab  2020-01-31T00:00:00.000Z (expired)\n" +
        "ops   cdcdcdcdcdcd  never\n",
    );
    expect(JSON.parse((await leasehold(["token", "list", "--file", file, "--json"])).stdout)).toEqual({
      tokens: [
        { name: "ci", sha256: "ab".repeat(32), expiresAt: "2020-01-31T00:00:00.000Z", expired: true },
        { name: "ops", sha256: "cd".repeat(32), expiresAt: null, expired: false },
      ],
    });
    writeFileSync(file, "");
    expect((await leasehold(["token", "list", "--file", file])).stdout).toBe("no tokens\n");
    expect(await leasehold(["token", "list", "--file", at("none")])).toMatchObject({ code: 64 });
  });
});

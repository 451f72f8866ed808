// What is read from files: names of certificates, tokens, and what changes when.
import { renameSync, writeFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { UnusableFileError } from "../../src/server/security/files.js";
import { certificateOwner } from "../../src/server/security/identity.js";
import { Reloader } from "../../src/server/security/reload.js";
import { digestOf, formatToken, parseTokens, Tokens } from "../../src/server/security/tokens.js";
import { file, tokenLine } from "./support.js";

describe("the owner of a certificate", () => {
  const owner = (subjectaltname?: string) => certificateOwner(subjectaltname === undefined ? {} : { subjectaltname });

  it("is its first URI, else its first DNS name", () => {
    expect(owner("URI:spiffe://prod/ci")).toBe("spiffe://prod/ci");
    expect(owner("DNS:a.example.org, URI:spiffe://prod/ci, URI:spiffe://prod/x")).toBe("spiffe://prod/ci");
    expect(owner("IP Address:10.0.0.1, DNS:a.example.org, DNS:b.example.org")).toBe("a.example.org");
    expect(owner('URI:"spiffe://prod/a,b"')).toBe("spiffe://prod/a,b");
  });

  it("is nobody where there is none, or none that could be a name", () => {
    for (const none of [undefined, "", "IP Address:10.0.0.1", "email:ci@example.org", "DNS:", "URI:a b", "nonsense"]) {
      expect(owner(none)).toBeNull();
    }
    expect(owner(`DNS:${"a".repeat(257)}`)).toBeNull();
  });

  it("is not taken from the midst of another name", () => {
    // As Node writes a DNS name with a comma in it, and as it would have to be misread.
    expect(owner('DNS:"a.example.org, URI:spiffe://prod/root"')).toBeNull();
    expect(owner('DNS:"a\\u0022, URI:spiffe://prod/root"')).toBeNull();
    expect(owner("othername:x, y, URI:spiffe://prod/root")).toBeNull();
    expect(owner('DNS:"a')).toBeNull();
  });
});

describe("a file of tokens", () => {
  const hash = digestOf("x").toString("hex");

  it("has a line for each, comments and empty lines", () => {
    const text = `# who\n\nci sha256:${hash}   # comment\n  ops/a@b:c+d-e\tsha256:${"AB".repeat(32)} expires=2027-01-31T00:00:00Z\r\n`;
    expect(parseTokens(text)).toEqual([
      { name: "ci", digest: digestOf("x"), expiresAtMs: null },
      { name: "ops/a@b:c+d-e", digest: Buffer.alloc(32, 0xab), expiresAtMs: Date.UTC(2027, 0, 31) },
    ]);
    expect(parseTokens("")).toEqual([]);
  });

  it("is written as it is read", () => {
    for (const expiresAtMs of [null, 1_800_000_000_123]) {
      const entry = { name: "ci", digest: digestOf("x"), expiresAtMs };
      expect(parseTokens(formatToken(entry))).toEqual([entry]);
    }
  });

  it("is refused for any line that is wrong, which is named and not quoted", () => {
    const good = `ci sha256:${hash}\n`;
    for (const wrong of [
      "ci",
      "lh_the-token-itself",
      `sha256:${hash}`,
      `ci ${hash}`,
      `ci sha256:${hash}0`,
      `ci sha256:${hash.slice(1)}`,
      `c€i sha256:${hash}`,
      `-ci sha256:${hash}`,
      `${"c".repeat(129)} sha256:${hash}`,
      `ci sha256:${hash} 2027-01-31T00:00:00Z`,
      `ci sha256:${hash} expires=tomorrow`,
      `ci sha256:${hash} expires=2027-13-31T00:00:00Z`,
      `ci sha256:${hash} expires=2027-01-31`,
      `ci sha256:${hash} expires=2027-01-31T00:00:00Z more`,
    ]) {
      const problem = parseTokens(`${good.replace(hash, "00".repeat(32))}\n${wrong}\n`);
      expect(problem).toMatch(/^line 3: /);
      for (const word of wrong.split(/\s+/)) if (/^lh_|[0-9a-f]{20}/.test(word)) expect(problem).not.toContain(word);
    }
    expect(parseTokens(good + good)).toBe("line 2: it is the same token as in an earlier line");
    const many = Array.from({ length: 10_001 }, (_, i) => tokenLine("ci", String(i))).join("");
    expect(parseTokens(many)).toMatch(/more than 10000 tokens/);
  });

  it("is refused when it is too large, or not there", async () => {
    const tokens = (name: string) => new Tokens(name, Date.now, () => {}).load();
    await expect(tokens(file("#".repeat(4_194_305)))).rejects.toThrow(/more than 4194304 bytes/);
    await expect(tokens("/nowhere")).rejects.toThrow(UnusableFileError);
    await expect(tokens("/nowhere")).rejects.toThrow('authTokens: "/nowhere": it cannot be read (ENOENT)');
    await expect(tokens("/")).rejects.toThrow(/it cannot be read \(EISDIR\)/);
  });

  it("accepts a token until it expires or is taken out, and by its owner's name only", async () => {
    let nowMs = 1_000_000;
    let loads = 0;
    const expires = new Date(2_000_000).toISOString();
    const alike = `ops sha256:${digestOf("z").toString("hex").slice(0, 62)}00\n`; // all but the end of another's
    const name = file(tokenLine("ci", "x", expires) + tokenLine("ops", "y") + alike);
    const tokens = new Tokens(
      name,
      () => nowMs,
      () => ++loads,
    );
    await tokens.load();
    const [x, y] = [tokens.authenticate("x"), tokens.authenticate("y")];
    if (!("stillValid" in x && "stillValid" in y)) throw new Error("not accepted");
    expect([x.name, x.expiresAtMs, y.name, y.expiresAtMs]).toEqual(["token/ci", 2_000_000, "token/ops", null]);
    nowMs = 1_999_999;
    expect([x.stillValid(), y.stillValid()]).toEqual([true, true]);
    nowMs = 2_000_000;
    expect([x.stillValid(), y.stillValid()]).toEqual([false, true]);
    expect(tokens.authenticate("x")).toMatchObject({ kind: "expired" });
    expect(tokens.authenticate("z")).toMatchObject({ kind: "unknown" });
    writeFileSync(name, tokenLine("other", "y"));
    await tokens.load();
    expect(y.stillValid()).toBe(false);
    expect(tokens.authenticate("y")).toMatchObject({ name: "token/other" });
    expect(loads).toBe(2);
  });
});

describe("the reloader", () => {
  function counting(name: string) {
    const item = {
      what: "it",
      files: [name],
      loads: 0,
      fails: false,
      async load() {
        if (item.fails) throw new Error("no");
        item.loads += 1;
      },
    };
    return item;
  }

  it("reads what has changed, and on demand everything", async () => {
    const [a, b] = [counting(file("a")), counting(file("b"))];
    const reloader = new Reloader({ pollMs: 3_600_000 });
    expect(reloader.empty).toBe(true);
    await reloader.add(a);
    await reloader.add(b);
    expect(reloader.empty).toBe(false);
    await reloader.poll();
    expect([a.loads, b.loads]).toEqual([1, 1]);
    writeFileSync(a.files[0] as string, "b"); // as long as before
    await reloader.poll();
    expect([a.loads, b.loads]).toEqual([2, 1]);
    renameSync(file("b"), b.files[0] as string);
    await reloader.poll();
    expect([a.loads, b.loads]).toEqual([2, 2]);
    await reloader.reload();
    expect([a.loads, b.loads]).toEqual([3, 3]);
    reloader.stop();
  });

  it("does not read again and again what cannot be used", async () => {
    const a = counting(file("a"));
    const errors: string[] = [];
    const log = { info: () => {}, error: (text: string) => errors.push(text) } as never;
    const reloader = new Reloader({ pollMs: 3_600_000, log });
    await reloader.add(a);
    a.fails = true;
    writeFileSync(a.files[0] as string, "wrong");
    for (let i = 0; i < 3; i++) await reloader.poll();
    expect(errors).toEqual(["it: not changed, because of no"]);
    a.fails = false;
    await reloader.poll();
    expect(a.loads).toBe(1);
    writeFileSync(a.files[0] as string, "right");
    await reloader.poll();
    expect(a.loads).toBe(2);
    reloader.stop();
  });

  it("rejects what cannot be used at the start", async () => {
    const a = counting(file("a"));
    a.fails = true;
    const reloader = new Reloader();
    await expect(reloader.add(a)).rejects.toThrow("no");
    expect(reloader.empty).toBe(true);
  });
});

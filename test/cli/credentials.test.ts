// Commands that show certificates and tokens to a server in a process of its own, and that server's signals.
import { chmodSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, expect, it, onTestFinished } from "vitest";
import { ServerProcess, temporaryFolder, until } from "../e2e/support.js";
import { certificateAuthority } from "../services/certificates.mjs";
import { describeWithServices } from "../services/vitest.js";
import { environment, leasehold } from "./support.js";

type Authority = Awaited<ReturnType<typeof certificateAuthority>>;
let authority: Authority;
let server: Awaited<ReturnType<Authority["issue"]>>;
let client: Awaited<ReturnType<Authority["issue"]>>;
const secrets: string[] = [];
let logs = "";
let started = 0;

async function token(file: string, name: string): Promise<{ readonly token: string; readonly file: string }> {
  const { stdout } = await leasehold(["token", "new", name, "--file", file]);
  const own = join(file, "..", `${name}.token`);
  writeFileSync(own, stdout, { mode: 0o600 });
  secrets.push(stdout.trim());
  return { token: stdout.trim(), file: own };
}

async function serve(...flags: string[]): Promise<ServerProcess> {
  const process = await ServerProcess.startIn(environment(), "memory:", "--log-level", "trace", ...flags);
  started += 1;
  onTestFinished(() => {
    logs += process.log;
  });
  return process;
}

const local = (address: string) => address.replace("127.0.0.1", "localhost");

afterAll(() => {
  expect(logs.match(/"serving"/g) ?? []).toHaveLength(started); // the search is in something
  for (const text of secrets) expect(logs).not.toContain(text);
});

describeWithServices("commands and their credentials", ["openssl"], () => {
  beforeAll(async () => {
    authority = await certificateAuthority();
    server = await authority.issue("server", { san: ["DNS:localhost", "IP:127.0.0.1"] });
    client = await authority.issue("client", { san: ["URI:spiffe://prod/ci"] });
  });

  const encrypted = () => ["--tls-cert", server.certFile, "--tls-key", server.keyFile];

  it("show tokens: status, locks, watch, run, top, tick", async () => {
    const folder = await temporaryFolder();
    const tokens = join(folder, "tokens");
    const ci = await token(tokens, "ci");
    const { address } = await serve("--auth-tokens", tokens, ...encrypted());
    const trusting = ["--addr", local(address), "--ca", authority.certFile];
    const known = [...trusting, "--auth-token-file", ci.file];
    for (const command of [["status"], ["locks"], ["locks", "describe", "a"], ["top"], ["tick"]]) {
      expect(await leasehold([...command, ...known])).toMatchObject({ code: 0, stderr: "" });
      expect(await leasehold([...command, ...trusting])).toMatchObject({
        ...{ code: 77, stdout: "", stderr: expect.stringContaining("(UNAUTHENTICATED)") },
      });
    }
    expect(await leasehold(["locks", ...known, "describe", "a"])).toMatchObject({ code: 0 });
    expect(await leasehold(["run", "a", ...known, "--", "echo", "done"])).toMatchObject({ code: 0, stdout: "done\n" });
    expect(await leasehold(["run", "a", ...trusting, "--", "echo", "done"])).toMatchObject({ code: 77, stdout: "" });
    expect(await leasehold(["watch", ...trusting])).toMatchObject({ code: 77, stdout: "" });
    expect(await leasehold(["elect", "a", ...trusting, "--", "true"])).toMatchObject({ code: 77, stdout: "" });
    const env = {
      LEASEHOLD_ADDR: local(address),
      LEASEHOLD_CA: authority.certFile,
      LEASEHOLD_AUTH_TOKEN_FILE: ci.file,
    };
    expect(await leasehold(["status"], env)).toMatchObject({ code: 0, stderr: "" });
    expect(await leasehold(["release", "a", "--force", "--yes", ...known])).toMatchObject({ code: 0 }); // it is free
  });

  it("show certificates", async () => {
    const { address } = await serve(
      ...encrypted(),
      "--tls-client-ca",
      authority.certFile,
      "--tls-client-auth",
      "required",
    );
    const trusting = ["--addr", local(address), "--ca", authority.certFile];
    const known = [...trusting, "--cert", client.certFile, "--key", client.keyFile];
    expect(await leasehold(["status", ...known])).toMatchObject({ code: 0, stderr: "" });
    expect(await leasehold(["run", "a", ...known, "--", "echo", "done"])).toMatchObject({ code: 0, stdout: "done\n" });
    expect(await leasehold(["status", ...trusting])).toMatchObject({ code: 69, stdout: "" });
    const env = {
      ...{ LEASEHOLD_ADDR: local(address), LEASEHOLD_CA: authority.certFile },
      ...{ LEASEHOLD_CERT: client.certFile, LEASEHOLD_KEY: client.keyFile },
    };
    expect(await leasehold(["status"], env)).toMatchObject({ code: 0, stderr: "" });
    // By its numeric address, of which TLS itself cannot be told.
    expect(await leasehold(["status", ...known, "--addr", address])).toMatchObject({ code: 0, stderr: "" });
  });

  it("say what is wrong before they try anything", async () => {
    const folder = await temporaryFolder();
    const empty = join(folder, "empty");
    writeFileSync(empty, "\n");
    const good = join(folder, "good");
    writeFileSync(good, "lh_x\n", { mode: 0o600 });
    const usage = (stderr: string) => ({ code: 64, stdout: "", stderr: expect.stringContaining(stderr) });
    for (const command of [["status"], ["run", "a"], ["watch"]]) {
      const told = (...flags: string[]) => leasehold([...command, ...flags]);
      expect(await told("--cert", client.certFile)).toMatchObject(usage("--cert and --key belong together"));
      expect(await told("--ca", join(folder, "none"))).toMatchObject(usage("--ca: cannot read"));
      expect(await told("--auth-token-file", join(folder, "none"))).toMatchObject(usage("cannot read"));
      expect(await told("--auth-token-file", empty)).toMatchObject(usage("has no token in it"));
      expect(await told("--plaintext", "--ca", authority.certFile)).toMatchObject(usage("--plaintext makes no use of"));
      expect(await told("--addr", "192.0.2.1:1", "--plaintext", "--auth-token-file", good)).toMatchObject(
        usage("without encryption"),
      );
    }
    // Of the variable, too, and only of one that says so.
    const remote = ["status", "--addr", "192.0.2.1:1,localhost:1", "--auth-token-file", good];
    expect(await leasehold(remote, { LEASEHOLD_PLAINTEXT: "1" })).toMatchObject(usage("without encryption"));
    for (const off of ["0", "false", ""]) {
      const local = ["status", "--addr", "localhost:1", "--ca", authority.certFile];
      expect(await leasehold(local, { LEASEHOLD_PLAINTEXT: off })).toMatchObject({ code: 69 });
    }
    expect(await leasehold(["status", "--ca", empty, "--addr", "localhost:1"])).toMatchObject({ stdout: "" });
  });

  it("warn of a token that everybody can read", async () => {
    const folder = await temporaryFolder();
    const tokens = join(folder, "tokens");
    const ci = await token(tokens, "ci");
    const { address } = await serve("--auth-tokens", tokens);
    chmodSync(ci.file, 0o644);
    const told = await leasehold(["status", "--addr", address, "--auth-token-file", ci.file]);
    expect(told).toMatchObject({
      code: 0,
      stderr: expect.stringMatching(/^leasehold: everybody .* can read the token in .*\n$/),
    });
  });

  it("SIGHUP reads the files again, at once, and the server goes on", async () => {
    const folder = await temporaryFolder();
    const tokens = join(folder, "tokens");
    const [old, next] = [await token(tokens, "old"), await token(tokens, "next")];
    const lines = readFileSync(tokens, "utf8").split("\n");
    writeFileSync(tokens, `${lines[0]}\n`);
    const process = await serve("--auth-tokens", tokens);
    const status = (file: string) => leasehold(["status", "--addr", process.address, "--auth-token-file", file]);
    expect((await status(next.file)).code).toBe(77);
    writeFileSync(tokens, `${lines[1]}\n`);
    process.signal("SIGHUP");
    await until(() => process.log.includes("the tokens: read again"), 20_000, "the tokens are read again");
    expect((await status(old.file)).code).toBe(77);
    expect((await status(next.file)).code).toBe(0);
    expect(process.log).toContain("SIGHUP: reading the files");
    expect(process.log).not.toContain("draining");
    expect(await process.stop()).toBe(0);
  });

  it("serve ends with 78 when a file cannot be used, and says which", async () => {
    const folder = await temporaryFolder();
    const wrong = join(folder, "tokens");
    writeFileSync(wrong, "lh_the-token-itself\n");
    const listen = ["serve", "--listen", "127.0.0.1:0", "--ops-listen", "none", "--store", "memory:"];
    const ended = async (...flags: string[]) => {
      const { code, stdout } = await leasehold([...listen, ...flags]);
      return { code, message: (JSON.parse(stdout.trim().split("\n").at(-1) ?? "{}") as { msg: string }).msg };
    };
    expect(await ended("--auth-tokens", wrong)).toEqual({
      code: 78,
      message: `cannot start: authTokens: ${JSON.stringify(wrong)}: line 1: the name is not followed by sha256: and 64 hexadecimal digits`,
    });
    expect(await ended("--tls-cert", server.certFile, "--tls-key", client.keyFile)).toMatchObject({
      code: 78,
      message: expect.stringContaining("it is not the key of the certificate"),
    });
    expect(await ended("--tls-cert", join(folder, "none"), "--tls-key", client.keyFile)).toMatchObject({
      ...{ code: 78, message: expect.stringContaining("(ENOENT)") },
    });
  });

  it("serve warns when others can reach it without encryption or authentication", async () => {
    const warnings = async (...flags: string[]) => {
      const listen = ["--listen", "0.0.0.0:7420", "--ops-listen", "0.0.0.0:7421"];
      const { code, stderr } = await leasehold(["serve", "--check-config", ...listen, ...flags]);
      return { code, stderr };
    };
    const tokensFile = join(await temporaryFolder(), "tokens");
    writeFileSync(tokensFile, "");
    const tokens = ["--auth-tokens", tokensFile];
    const both = "0.0.0.0:7420 and 0.0.0.0:7421 can be reached from other machines, and";
    const permitted = "that is permitted by insecure\n";
    expect(await warnings("--insecure")).toEqual({
      code: 0,
      stderr:
        `${both} the traffic is neither encrypted (tlsCert) nor authenticated (authTokens, authJwks or tlsClientAuth); ` +
        permitted,
    });
    expect(await warnings("--insecure", ...tokens)).toEqual({
      ...{ code: 0, stderr: `${both} the traffic is not encrypted (tlsCert); ${permitted}` },
    });
    expect(await warnings("--insecure", ...encrypted())).toEqual({
      code: 0,
      stderr: `${both} callers are not authenticated (authTokens, authJwks or tlsClientAuth); ${permitted}`,
    });
    expect(await warnings(...tokens)).toMatchObject({ code: 78 });
    expect(await warnings(...tokens, ...encrypted())).toEqual({ code: 0, stderr: "" });
  });

  it("serve --check-config reads the files that are named, and says what is wrong with them", async () => {
    const folder = await temporaryFolder();
    const policy = join(folder, "policy.yaml");
    const known = [...encrypted(), "--tls-client-auth", "optional", "--tls-client-ca", authority.certFile];
    const check = (...flags: string[]) => leasehold(["serve", "--check-config", ...known, ...flags]);
    writeFileSync(policy, "rules:\n  - {principal: '*', prefix: '', verbs: [acquire]}\n");
    expect(await check("--policy", policy)).toMatchObject({ code: 0, stderr: "" });
    writeFileSync(policy, "rules:\n  - {principal: '*', prefix: '', verbs: [aquire]}\n");
    expect(await check("--policy", policy)).toEqual({
      code: 78,
      stdout: "",
      stderr: expect.stringMatching(/^policy: ".*policy.yaml": line 2: .*\n$/),
    });
    expect(await check("--auth-tokens", join(folder, "none"))).toMatchObject({
      ...{ code: 78, stdout: "", stderr: expect.stringContaining("(ENOENT)") },
    });
  });
});

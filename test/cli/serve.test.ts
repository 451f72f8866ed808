import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { type ClientHttp2Session, connect } from "node:http2";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { environment, leasehold, program } from "./support.js";

let folder: string;
let children: ChildProcess[] = [];

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "leasehold-serve-"));
});
afterEach(() => {
  for (const child of children) child.kill("SIGKILL");
  children = [];
  rmSync(folder, { recursive: true, force: true });
});

type Line = { readonly level: string; readonly msg: string; readonly address: string; readonly opsAddress: string };

interface Serving {
  readonly address: string;
  readonly opsAddress: string;
  readonly child: ChildProcess;
  readonly ended: Promise<number | null>;
  /** Resolves with the next line of the log whose message begins so. */
  logged(message: string): Promise<Line>;
}

/** Starts a server on free ports and waits until it says that it serves. */
async function serve(args: readonly string[] = [], env: Readonly<Record<string, string>> = {}): Promise<Serving> {
  const all = [program, "serve", "--listen", "127.0.0.1:0", "--ops-listen", "127.0.0.1:0", ...args];
  const child = spawn(process.execPath, all, {
    env: environment(env),
    stdio: ["ignore", "pipe", "inherit"],
    cwd: folder,
  });
  children.push(child);
  const ended = new Promise<number | null>((resolve) => child.once("exit", (code) => resolve(code)));
  const lines = createInterface({ input: child.stdout! });
  const logged = (message: string) =>
    new Promise<Line>((resolve, reject) => {
      lines.on("line", (text) => {
        const line = JSON.parse(text) as Line;
        if (line.msg.startsWith(message)) resolve(line);
      });
      lines.once("close", () => reject(new Error(`the server ended and never said "${message}"`)));
    });
  const { address, opsAddress } = await logged("serving");
  return { address, opsAddress, child, ended, logged };
}

/** A client in the middle of a request that it never finishes: it keeps a draining server waiting. */
async function stuckClient(address: string): Promise<ClientHttp2Session> {
  const session = connect(`http://${address}`);
  session.on("error", () => undefined);
  await once(session, "connect");
  const headers = {
    ":method": "POST",
    ":path": "/leasehold.v1.AdminService/Status",
    "content-type": "application/grpc",
  };
  session.request({ ...headers, te: "trailers" }, { endStream: false }).on("error", () => undefined);
  // The server has the request when it answers the ping behind it.
  await new Promise<void>((resolve, reject) => session.ping((error) => (error ? reject(error) : resolve())));
  return session;
}

describe("serve", () => {
  it("serves, is looked at, and ends with 0 on SIGTERM", async () => {
    const { address, opsAddress, child, ended } = await serve();
    const status = await leasehold(["status", "--json", "--addr", address]);
    expect(JSON.parse(status.stdout)).toMatchObject({ store: "level", serving: true, incarnation: 1 });
    expect((await leasehold(["tick", "3", "--addr", address])).stdout).toMatch(/^\d+\.\.\d+\n$/);
    expect((await leasehold(["locks"], { LEASEHOLD_ADDR: address })).stdout).toBe("no locks\n");
    expect((await fetch(`http://${opsAddress}/readyz`)).status).toBe(200);
    expect(await (await fetch(`http://${opsAddress}/metrics`)).text()).toContain("leasehold_build_info{");
    child.kill("SIGTERM");
    expect(await ended).toBe(0);
    expect(await leasehold(["status", "--addr", address])).toMatchObject({ code: 69 });
  });

  it("ends at once on a second signal", async () => {
    const { address, child, ended, logged } = await serve(["--store", "memory:", "--drain-ms-max", "1h"]);
    const client = await stuckClient(address);
    const draining = logged("SIGTERM: draining");
    child.kill("SIGTERM");
    await draining;
    child.kill("SIGINT");
    expect(await ended).toBe(130);
    client.destroy();
  });

  it("ends with 0 when a client never leaves, after the time that draining may take", async () => {
    const { address, child, ended } = await serve(["--store", "memory:", "--drain-ms-max", "200ms"]);
    const client = await stuckClient(address);
    child.kill("SIGTERM");
    expect(await ended).toBe(0);
    client.destroy();
  });

  it("takes its options from the environment and from a file", async () => {
    const file = join(folder, "leasehold.yaml");
    writeFileSync(file, "store: 'memory:'\nlogLevel: debug\n");
    const { address, child, ended } = await serve(["--config", file], { LEASEHOLD_LOG_LEVEL: "info" });
    expect(JSON.parse((await leasehold(["status", "--json", "--addr", address])).stdout)).toMatchObject({
      store: "memory",
    });
    child.kill("SIGINT");
    expect(await ended).toBe(0);
  });

  it("refuses a wrong configuration with one line and 78", async () => {
    const cases: [string[], Record<string, string>, string][] = [
      [["--listen", "foo"], {}, '--listen: "foo" is not host:port\n'],
      [[], { LEASEHOLD_OPS_LISTEN: "x" }, 'LEASEHOLD_OPS_LISTEN: "x" is not host:port and not "none"\n'],
      [["--config", "/none.yaml"], {}, '--config: cannot read "/none.yaml" (ENOENT)\n'],
      [["--listen", "0.0.0.0:0"], {}, expect.stringMatching(/^--listen: .*add --insecure.*\n$/)],
    ];
    for (const [args, env, stderr] of cases) {
      expect(await leasehold(["serve", ...args], env)).toEqual({ code: 78, stdout: "", stderr });
    }
  });

  it("checks a configuration without serving", async () => {
    const good = await leasehold(["serve", "--check-config", "--limits-locks-max", "5"], { LEASEHOLD_LSTEN: "x" });
    expect(good.code).toBe(0);
    expect(good.stdout).toMatch(/^listen: 127\.0\.0\.1:7420\n/);
    expect(good.stdout).toContain("\n  locksMax: 5\n");
    expect(good.stderr).toBe(
      "the environment variable LEASEHOLD_LSTEN has no meaning; did you mean LEASEHOLD_LISTEN?\n",
    );
    expect(await leasehold(["serve", "--check-config", "--store", "x"])).toMatchObject({ code: 78, stdout: "" });
  });

  it("says in one line why it cannot start", async () => {
    const lastLine = (stdout: string) => JSON.parse(stdout.trimEnd().split("\n").at(-1) ?? "") as Line;
    const taken = createServer().listen(0, "127.0.0.1");
    await new Promise((resolve) => taken.once("listening", resolve));
    const bound = taken.address();
    const port = typeof bound === "object" ? bound?.port : 0;
    const busy = await leasehold([
      "serve",
      "--listen",
      "127.0.0.1:0",
      "--ops-listen",
      `127.0.0.1:${port}`,
      "--store",
      "memory:",
    ]);
    taken.close();
    expect(busy.code).toBe(70);
    expect(lastLine(busy.stdout)).toMatchObject({ level: "fatal", msg: expect.stringContaining("EADDRINUSE") });

    const store = `level:${folder}/data`;
    await serve(["--store", store]);
    const second = await leasehold(["serve", "--listen", "127.0.0.1:0", "--ops-listen", "none", "--store", store]);
    expect(second.code).toBe(70);
    expect(lastLine(second.stdout)).toMatchObject({ level: "fatal", msg: expect.stringMatching(/^cannot start: /) });
    expect(lastLine(second.stdout)).not.toHaveProperty("err");
  });
});

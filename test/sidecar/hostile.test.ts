/** What must not harm the sidecar: web pages, slow and silent connections, and input that means nothing. */
import { connect, type Socket } from "node:net";
import fc from "fast-check";
import { expect, onTestFinished, test } from "vitest";
import type { ProblemBody } from "../../src/sidecar/api/schemas.js";
import { memoryServer } from "../e2e/in-process.js";
import { until } from "../e2e/support.js";
import { ask, SidecarProcess, target } from "./support.js";

const seed = Number(process.env.LEASEHOLD_SEED ?? Math.floor(Math.random() * 2 ** 31));
console.log(`hostile: LEASEHOLD_SEED=${seed}`);

async function started(...flags: string[]): Promise<SidecarProcess> {
  return SidecarProcess.start(await memoryServer(), ...flags);
}

/** Bytes on a socket of its own. */
class Raw {
  readonly socket: Socket;
  said = "";
  closed = false;

  constructor(address: string, bytes?: string | Buffer) {
    const { host, port } = target(address);
    this.socket = connect(Number(port), String(host));
    this.socket.on("error", () => {});
    this.socket.on("data", (chunk) => {
      this.said += chunk;
    });
    this.socket.on("close", () => {
      this.closed = true;
    });
    if (bytes !== undefined) this.socket.write(bytes);
    onTestFinished(() => void this.socket.destroy());
  }
}

/** Without halves of surrogate pairs, which no URL can have. */
const wellFormed = (text: string) => Buffer.from(text).toString();

const works = async (sidecar: SidecarProcess) => {
  const answer = await sidecar.ask("POST", "/v1/locks/works/acquire", { maxHold: "1m" });
  expect(answer.status).toBe(200);
  expect((await sidecar.ask("DELETE", `/v1/holds/${answer.body.holdId}`)).status).toBe(200);
};

test.each([
  { Origin: "https://evil.example" },
  { Origin: "null" },
  { "Sec-Fetch-Site": "cross-site" },
  { Host: "evil.example" },
  { Host: "evil.example:7422" },
  { Host: "127.0.0.1.evil.example" },
  { Host: "localhost.evil.example" },
])("a web page is refused: %j", async (headers) => {
  const sidecar = await started();
  const answer = await sidecar.ask<ProblemBody>("POST", "/v1/locks/a/acquire", { maxHold: "1m" }, { headers });
  expect([answer.status, answer.body.code]).toEqual([403, "DENIED"]);
  for (const Host of ["localhost", "LOCALHOST:80", "127.0.0.1:7422", "127.9.9.9", "[::1]:7422"]) {
    expect((await sidecar.ask("GET", "/v1/lock?name=a", undefined, { headers: { Host } })).status).toBe(200);
  }
});

test.each(["0.0.0.0:7422", "192.168.1.2:7422", "example.com:1", "[::]:0"])("--listen %s is refused", async (listen) => {
  const sidecar = SidecarProcess.spawn(["--listen", listen]);
  expect(await sidecar.exit()).toBe(64);
  expect(sidecar.log).toContain("There is no authentication");
});

test.each([
  [["--value", "x"], "--elect"],
  [["--on-lost", "/bin/true"], "--elect"],
  [["--ready-when", "leader"], "--elect"],
  [["--elect", "x", "--on-elected", "[1]"], "JSON array"],
  [["--elect", "x", "--on-elected", "/bin/true", "--ttl", "2s"], "--ttl is too short"],
  [["--lock", "x"], "--proxy"],
  [["--proxy", "http://127.0.0.1:1"], "--lock"],
  [["--proxy", "ftp://127.0.0.1:1", "--lock", "x"], "http"],
  [["--proxy", "http://me:secret@127.0.0.1:1", "--lock", "x"], "credentials"],
  [["--socket-mode", "9"], "file mode"],
  [["--holds", "0"], "above zero"],
] as const)("wrong flags are refused: %j", async (flags, says) => {
  const sidecar = SidecarProcess.spawn([...flags, "--listen", "127.0.0.1:0"]);
  expect(await sidecar.exit()).toBe(64);
  expect(sidecar.log).toContain(says);
});

const BAD: readonly [method: string, path: string, body: unknown, status: number][] = [
  ["POST", "/v1/locks/a/acquire", "{", 400],
  ["POST", "/v1/locks/a/acquire", "[]", 400],
  ["POST", "/v1/locks/a/acquire", "null", 400],
  ["POST", "/v1/locks/a/acquire", Buffer.from([0x22, 0xff, 0x22]), 400],
  ["POST", "/v1/locks/a/acquire", { maxHold: "1m", wiat: "5s" }, 400],
  ["POST", "/v1/locks/a/acquire", { maxHold: "soon" }, 400],
  ["POST", "/v1/locks/a/acquire", { maxHold: 0 }, 400],
  ["POST", "/v1/locks/a/acquire", { maxHold: -1 }, 400],
  ["POST", "/v1/locks/a/acquire", { maxHold: 1e300 }, 400],
  ["POST", "/v1/locks/a/acquire", { maxHold: "1m", ttl: "1ms" }, 400],
  ["POST", "/v1/locks/a/acquire", { maxHold: "1m", mode: "shared", permits: 2 }, 400],
  ["POST", "/v1/locks/a/acquire", { maxHold: "1m", take: 2 }, 400],
  ["POST", "/v1/locks/a/acquire", { maxHold: "1m", permits: 2, take: 3 }, 400],
  ["POST", "/v1/locks/a/acquire", { maxHold: "1m", owner: "\u0000" }, 400],
  ["POST", "/v1/locks/a/acquire", { maxHold: "1m", holding: ["nothing"] }, 404],
  ["POST", "/v1/locks/a/acquire?maxHold=1m", { maxHold: "1m" }, 400],
  ["POST", "/v1/locks/a/acquire?maxHold=1m&maxHold=2m", undefined, 400],
  ["POST", `/v1/locks/${"x".repeat(600)}/acquire`, { maxHold: "1m" }, 400],
  ["POST", "/v1/locks/%00/acquire", { maxHold: "1m" }, 400],
  ["POST", "/v1/locks/%ff/acquire", { maxHold: "1m" }, 400],
  ["POST", "/v1/locks/%zz/acquire", { maxHold: "1m" }, 400],
  ["POST", "/v1/locks//acquire", { maxHold: "1m" }, 404],
  ["POST", "/v1/lock/acquire?name=", { maxHold: "1m" }, 400],
  ["POST", "/v1/lock/acquire", { maxHold: "1m" }, 400],
  ["POST", "/v1/locks/a/hold?heartbeat=5s", undefined, 400],
  ["POST", "/v1/locks/a/hold?__proto__=5s", undefined, 400],
  ["POST", "/v1/locks/a/release", {}, 400],
  ["POST", "/v1/locks/a/release", { token: 1.5 }, 400],
  ["POST", "/v1/locks/a/release", { token: 2 ** 60 }, 400],
  ["POST", "/v1/clock/tick", { count: 1_000_001 }, 400],
  ["POST", "/v1/clock/observe", { timestamp: "5" }, 400],
  ["GET", "/v1/holds/nothing", undefined, 404],
  ["DELETE", "/v1/locks/a", undefined, 405],
  ["PUT", "/v1/holds", "x", 405],
  ["GET", "/v1/locks/a/b/c", undefined, 404],
  ["GET", "/", undefined, 404],
  ["POST", "/v1/locks/a/acquire", "x".repeat(70_000), 413],
];

test("bad input gets a clear answer and changes nothing", async () => {
  const sidecar = await started();
  for (const [method, path, body, status] of BAD) {
    const where = `${method} ${path.slice(0, 60)} ${JSON.stringify(body)?.slice(0, 60)}`;
    const answer = await ask<ProblemBody>(sidecar.address, method, path, body);
    expect(answer.status, `${where}: ${answer.text}`).toBe(status);
    expect(answer.headers["content-type"], where).toBe("application/problem+json");
    expect(answer.body.detail.length, where).toBeGreaterThan(0);
  }
  expect((await sidecar.ask("GET", "/v1/holds")).body).toEqual({ holds: [], total: 0 });
  expect(sidecar.log).not.toContain("a bug");
  await works(sidecar);
});

test("random bytes and random requests leave it as it was", { timeout: 120_000 }, async () => {
  const sidecar = await started();
  const bytes = fc.uint8Array({ minLength: 1, maxLength: 2_000 }).map((data) => Buffer.from(data));
  const line = fc
    .tuple(
      fc.constantFrom("GET", "POST", "DELETE", "PUT", "HEAD", "OPTIONS", "CONNECT", "BREW"),
      fc.webPath(),
      fc.string({ maxLength: 50 }),
      fc.jsonValue(),
    )
    .map(([method, path, header, body]) => {
      const text = JSON.stringify(body);
      const head = `${method} /v1${path} HTTP/1.1\r\nHost: localhost\r\nX-A: ${header}\r\n`;
      return Buffer.from(`${head}Content-Length: ${Buffer.byteLength(text)}\r\nConnection: close\r\n\r\n${text}`);
    });
  await fc.assert(
    fc.asyncProperty(fc.oneof(bytes, line), async (data) => {
      const raw = new Raw(sidecar.address, data);
      raw.socket.end();
      await until(() => raw.closed, 20_000, "the end of the connection");
      expect(raw.said).not.toMatch(/^HTTP\/1\.1 500/);
    }),
    { seed, numRuns: 300 },
  );
  const inputs = fc.record(
    {
      mode: fc.anything(),
      permits: fc.anything(),
      wait: fc.constantFrom<unknown>(0, "0s", "x", null),
      ttl: fc.anything(),
      maxHold: fc.oneof(fc.constant("1s"), fc.anything()),
      heartbeat: fc.anything(),
      owner: fc.anything(),
      metadata: fc.anything(),
      requestId: fc.anything(),
    },
    { requiredKeys: [] },
  );
  await fc.assert(
    fc.asyncProperty(fc.string({ minLength: 1, maxLength: 40 }), inputs, async (name, input) => {
      const body = JSON.stringify(input, (_, value) => (typeof value === "bigint" ? String(value) : value)) ?? "";
      const path = `/v1/lock/acquire?name=${encodeURIComponent(wellFormed(name))}`;
      const answer = await sidecar.ask("POST", path, body);
      expect([200, 400, 423]).toContain(answer.status);
    }),
    { seed, numRuns: 300 },
  );
  expect(sidecar.log).not.toContain("a bug");
  await works(sidecar);
});

test("who says nothing, or speaks slowly, is cut off; others are served meanwhile", { timeout: 120_000 }, async () => {
  const sidecar = await started();
  const head = "POST /v1/locks/a/acquire HTTP/1.1\r\nHost: localhost\r\n";
  const silent = Array.from({ length: 100 }, () => new Raw(sidecar.address));
  const slowHead = Array.from({ length: 50 }, () => new Raw(sidecar.address, head));
  const slowBody = Array.from({ length: 50 }, () => new Raw(sidecar.address, `${head}Content-Length: 100\r\n\r\n{`));
  const drip = setInterval(() => {
    for (const [i, raw] of [...slowHead, ...slowBody].entries()) raw.socket.write(i < 50 ? "X-A: b\r\n" : " ");
  }, 500);
  onTestFinished(() => clearInterval(drip));
  await works(sidecar);
  const all = [...silent, ...slowHead, ...slowBody];
  await until(() => all.every(({ closed }) => closed), 60_000, "the end of all of them");
  for (const raw of slowHead) expect(raw.said).toMatch(/^(HTTP\/1\.1 408 |$)/);
  await works(sidecar);
});

test("headers and their number are bounded", async () => {
  const sidecar = await started();
  const huge = new Raw(
    sidecar.address,
    `GET /readyz HTTP/1.1\r\nHost: localhost\r\nX-A: ${"x".repeat(40_000)}\r\n\r\n`,
  );
  await until(() => huge.closed);
  expect(huge.said).toMatch(/^HTTP\/1\.1 431 /);
  await works(sidecar);
});

test("more connections than there can be holds are turned away", async () => {
  const sidecar = await started("--holds", "10");
  const raws = Array.from({ length: 400 }, () => new Raw(sidecar.address));
  await until(() => raws.filter(({ closed }) => closed).length >= 400 - 10 - 256);
  expect(raws.filter(({ closed }) => !closed).length).toBeGreaterThan(200);
  for (const { socket } of raws) socket.destroy();
  await until(async () => (await sidecar.ask("GET", "/v1/status").catch(() => null))?.status === 200);
  await works(sidecar);
});

test("the proxy, too, cuts off who says nothing or speaks slowly", { timeout: 120_000 }, async () => {
  const proxy = ["--proxy", "http://127.0.0.1:1", "--lock", "a", "--proxy-listen", "127.0.0.1:0"];
  const sidecar = await started(...proxy);
  const silent = new Raw(sidecar.proxyAddress);
  const slow = new Raw(sidecar.proxyAddress, "GET / HTTP/1.1\r\nHost: localhost\r\n");
  const drip = setInterval(() => slow.socket.write("X-A: b\r\n"), 500);
  onTestFinished(() => clearInterval(drip));
  await until(() => silent.closed && slow.closed, 60_000, "the end of both");
});

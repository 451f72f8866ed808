// What a policy permits, over the wire: each call and each command of a session, quotas, and what the audit log has of it.
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { type Client, Metadata, type ServiceError } from "@grpc/grpc-js";
import { decode, decodeStatus, encode, type leasehold, type MessageType, v1 } from "@leasehold/client/wire";
import { afterAll, describe, expect, it, onTestFinished } from "vitest";
import { until } from "../e2e/support.js";
import { connection, expectNoSecretLogged, file, folder, secret, serve, tokenLine } from "./support.js";

afterAll(expectNoSecretLogged);

const raw = (bytes: Buffer) => bytes;
const TOKENS = { ci: "lh_ci", eyes: "lh_eyes", ops: "lh_ops", none: "lh_none" };
for (const name of Object.keys(TOKENS) as (keyof typeof TOKENS)[]) {
  TOKENS[name] = secret(`${TOKENS[name]}${"-secret".repeat(6)}`);
}
type Name = keyof typeof TOKENS;

const RULES = `rules:
  - { principal: token/ci, prefix: ci/, verbs: [acquire] }
  - { principal: token/eyes, prefix: ci/, verbs: [observe] }
  - { principal: token/ops, prefix: "", verbs: [observe, admin] }
`;

let logs = 0;

async function start(policy = RULES) {
  const authTokens = file(
    Object.entries(TOKENS)
      .map(([name, token]) => tokenLine(name, token))
      .join(""),
  );
  const auditLog = join(folder, `audit-${++logs}`);
  const rules = file(policy);
  const server = await serve({ authTokens, policy: rules, auditLog });
  const client = connection(server.address, {});
  onTestFinished(() => client.close());
  const audit = () =>
    readFileSync(auditLog, "utf8")
      .split("\n")
      .filter((line) => line !== "")
      .map((line) => JSON.parse(line) as Record<string, unknown>);
  const change = (text: string) => writeFileSync(rules, text);
  return { server, client, audit, change, auditLog };
}

function headers(name: Name, requestId?: string): Metadata {
  const metadata = new Metadata();
  metadata.set("authorization", `Bearer ${TOKENS[name]}`);
  if (requestId !== undefined) metadata.set("x-request-id", requestId);
  return metadata;
}

const reasonOf = (error: ServiceError) => {
  const bytes = error.metadata.get("grpc-status-details-bin")[0];
  return Buffer.isBuffer(bytes) ? decodeStatus(bytes) : undefined;
};

/** "OK" or the reason of the refusal. */
function ask<M>(client: Client, who: Name, method: string, type: MessageType<M, unknown>, message: M, id?: string) {
  return new Promise<string>((resolve) => {
    const bytes = encode(type, message);
    client.makeUnaryRequest(`/leasehold.v1.${method}`, raw, raw, bytes, headers(who, id), (error) =>
      resolve(error === null ? "OK" : (reasonOf(error)?.reason ?? error.details)),
    );
  });
}

/** The first thing that a watcher is told. */
function watch(client: Client, who: Name, request: leasehold.v1.WatchRequest.$Properties): Promise<string> {
  const bytes = encode(v1.WatchRequest, request);
  const stream = client.makeServerStreamRequest("/leasehold.v1.LockService/Watch", raw, raw, bytes, headers(who));
  onTestFinished(() => stream.cancel());
  return new Promise((resolve) => {
    stream.on("data", () => resolve("OK"));
    stream.on("error", (error: ServiceError) => resolve(reasonOf(error)?.reason ?? error.details));
  });
}

class Session {
  #frame = 1;
  #seq = 0;
  readonly #waiting = new Map<number, (result: leasehold.v1.Result.$Properties) => void>();
  readonly #stream;

  constructor(client: Client, who: Name) {
    this.#stream = client.makeBidiStreamRequest("/leasehold.v1.SessionService/Attach", raw, raw, headers(who));
    this.#stream.on("error", () => undefined);
    this.#stream.on("data", (bytes: Buffer) => {
      for (const result of decode(v1.AttachResponse, bytes).results) this.#waiting.get(result.seq as number)?.(result);
    });
    this.#stream.write(encode(v1.AttachRequest, { frame: 1, hello: { epoch: 1, client: "test" } }));
    onTestFinished(() => this.#stream.cancel());
  }

  /** All in one frame. */
  send(...commands: Omit<leasehold.v1.Command.$Properties, "seq">[]): Promise<leasehold.v1.Result.$Properties[]> {
    const numbered = commands.map((command) => ({ ...command, seq: ++this.#seq }));
    this.#stream.write(encode(v1.AttachRequest, { frame: ++this.#frame, commands: numbered }));
    return Promise.all(
      numbered.map(({ seq }) => new Promise<leasehold.v1.Result.$Properties>((done) => this.#waiting.set(seq, done))),
    );
  }

  async reasons(...commands: Parameters<Session["send"]>): Promise<string[]> {
    return (await this.send(...commands)).map(({ failure }) => failure?.reason || "OK");
  }
}

const mine = "ci/deploy";
const other = "prod/db";
const lease = { ttlMs: 60_000 };

describe("a call", () => {
  it("is permitted by verb and prefix, and all else is DENIED", async () => {
    const { client } = await start();
    const acquire = (who: Name, name: string) =>
      ask(client, who, "LockService/Acquire", v1.AcquireRequest, { name, mode: 1, ...lease });
    const all = (names: string[]) =>
      ask(client, "ci", "LockService/AcquireAll", v1.AcquireAllRequest, {
        locks: names.map((name) => ({ name, mode: 1 })),
        ...lease,
      });
    expect(await acquire("ci", mine)).toBe("OK");
    expect(await acquire("ci", other)).toBe("DENIED");
    expect(await acquire("ci", "ci")).toBe("DENIED"); // shorter than the prefix
    for (const who of ["eyes", "ops", "none"] as const) expect(await acquire(who, "ci/free")).toBe("DENIED");
    expect(await all(["ci/1", "ci/2"])).toBe("OK");
    expect(await all(["ci/3", other])).toBe("DENIED");

    const reading: [string, (who: Name, name: string) => Promise<string>, string][] = [
      ["describe", (w, name) => ask(client, w, "LockService/DescribeLock", v1.DescribeLockRequest, { name }), ""],
      ["list", (w, prefix) => ask(client, w, "LockService/ListLocks", v1.ListLocksRequest, { prefix }), ""],
      ["watch one", (w, name) => watch(client, w, { name }), ""],
      ["watch many", (w, prefix) => watch(client, w, { prefix }), ""],
      ["validate", (w, name) => ask(client, w, "LockService/Validate", v1.ValidateRequest, { name, token: 1 }), "ci"],
    ];
    for (const [what, read, also] of reading) {
      const seen: Record<string, string> = {};
      for (const who of Object.keys(TOKENS) as Name[]) {
        seen[who] = `${await read(who, mine)} ${await read(who, "ci/")} ${await read(who, other)}`;
      }
      expect({ what, ...seen }).toEqual({
        what,
        ci: also === "ci" ? "OK OK DENIED" : "DENIED DENIED DENIED",
        eyes: "OK OK DENIED",
        ops: "OK OK OK",
        none: "DENIED DENIED DENIED",
      });
    }
    // A prefix that is wider than what is permitted.
    expect(await ask(client, "eyes", "LockService/ListLocks", v1.ListLocksRequest, { prefix: "c" })).toBe("DENIED");
    expect(await watch(client, "eyes", { prefix: "" })).toBe("DENIED");

    const everything: [string, () => Promise<string>[]][] = [
      ["ListLeases", () => each((who) => ask(client, who, "LeaseService/ListLeases", v1.ListLeasesRequest, {}))],
      ["TopLocks", () => each((who) => ask(client, who, "AdminService/TopLocks", v1.TopLocksRequest, {}))],
      [
        "SetLogLevel",
        () => each((who) => ask(client, who, "AdminService/SetLogLevel", v1.SetLogLevelRequest, { level: "trace" })),
      ],
    ];
    for (const [what, answers] of everything) {
      expect([what, ...(await Promise.all(answers()))]).toEqual([what, "DENIED", "DENIED", "OK", "DENIED"]);
    }
    const force = (who: Name) =>
      ask(client, who, "AdminService/ForceRelease", v1.ForceReleaseRequest, { name: mine, now: true });
    for (const who of ["ci", "eyes", "none"] as const) expect(await force(who)).toBe("DENIED");
    expect(await force("ops")).toBe("OK");
    for (const answer of await Promise.all(
      each((who) => ask(client, who, "AdminService/Status", v1.StatusRequest, {})),
    ))
      expect(answer).toBe("OK"); // whoever is known may
  });

  const each = (one: (who: Name) => Promise<string>) => (Object.keys(TOKENS) as Name[]).map(one);
});

describe("a session", () => {
  it("has each command permitted by itself: its neighbours in the frame are served", async () => {
    const { client } = await start();
    const session = new Session(client, "ci");
    const holder = { sessionLease: 1, mode: 1 };
    expect(
      await session.reasons(
        { createLease: lease },
        { acquire: { name: mine, ...holder } },
        { acquire: { name: other, ...holder } },
        {
          acquireAll: {
            locks: [
              { name: "ci/1", mode: 1 },
              { name: other, mode: 1 },
            ],
            sessionLease: 1,
          },
        },
        { describeLock: { name: mine } },
        { listLocks: { prefix: "ci/" } },
        { validate: { name: mine, token: 1 } },
        { validate: { name: other, token: 1 } },
        { tick: { count: 1 } },
      ),
    ).toEqual(["OK", "OK", "DENIED", "DENIED", "DENIED", "DENIED", "OK", "DENIED", "OK"]);
    const eyes = new Session(client, "eyes");
    expect(await eyes.reasons({ describeLock: { name: mine } }, { listLocks: { prefix: "" } })).toEqual([
      "OK",
      "DENIED",
    ]);
  });

  it("that is open is judged by a new policy from the next command on, and a wrong policy changes nothing", async () => {
    const { server, client, change, audit } = await start();
    const session = new Session(client, "none");
    const look = () => session.reasons({ describeLock: { name: mine } });
    expect(await look()).toEqual(["DENIED"]);
    change(RULES.replace("token/eyes", '"*"'));
    await until(async () => (await look())[0] === "OK", 10_000, "the new policy is in force");
    change("rules: [{ principal: nobody }]");
    await until(() => /line 1: rules\[0\]\.principal/.test(server.log), 10_000, "the mistake is logged");
    expect(await look()).toEqual(["OK"]);
    change("rules: []");
    await until(async () => (await look())[0] === "DENIED", 10_000, "nothing is permitted");
    const read = () => audit().filter(({ event }) => event === "policy_read").length;
    await until(() => read() >= 3, 10_000, "each reading of a good policy is written down");
    expect(read()).toBe(3);
  });
});

describe("what an answer tells of other locks", () => {
  const all = `${RULES}  - { principal: token/none, prefix: "", verbs: [acquire] }\n`;
  const holder = { sessionLease: 1, mode: 1 };
  const waits = { ...holder, waitMs: 60_000 };

  /** A session that holds a lock. */
  async function holding(client: Client, who: Name, name: string, owner: string) {
    const session = new Session(client, who);
    const [, result] = await session.send({ createLease: { ...lease, owner } }, { acquire: { name, ...holder } });
    return { session, token: result?.acquire?.grant?.token as number };
  }

  /** Waits, and keeps what it holds. */
  const waitFor = ({ session, token }: Awaited<ReturnType<typeof holding>>, name: string) =>
    session.send({ acquire: { name, ...waits, heldTokens: [token] } });

  /** Until so many wait for a lock. */
  async function waiters(client: Client, name: string, count: number): Promise<void> {
    const ops = new Session(client, "ops");
    const total = async () => (await ops.send({ describeLock: { name } }))[0]?.describeLock?.waitersTotal;
    await until(async () => (await total()) === count, 10_000, `${count} wait for ${name}`);
  }

  it("is the name of none that the caller may not see: whose wait is in the way", async () => {
    const { client } = await start(all);
    await holding(client, "none", other, "the secret project");
    void waitFor(await holding(client, "none", mine, "anybody"), other);
    await waiters(client, other, 1);
    const ci = new Session(client, "ci");
    void ci.send({ createLease: lease }, { acquire: { name: mine, ...waits } });
    await waiters(client, mine, 1);

    const bySession = async (who: Name) => {
      const [result] = await new Session(client, who).send({ describeLock: { name: mine } });
      return result?.describeLock?.waiters?.[0]?.blockedBy;
    };
    const byCall = async (who: Name): Promise<typeof view> => {
      const bytes = encode(v1.DescribeLockRequest, { name: mine });
      const path = "/leasehold.v1.LockService/DescribeLock";
      const answer = await new Promise<Buffer>((resolve, reject) =>
        client.makeUnaryRequest(path, raw, raw, bytes, headers(who), (error, value) =>
          error ? reject(error) : resolve(value as Buffer),
        ),
      );
      return decode(v1.DescribeLockResponse, answer).waiters[0]?.blockedBy;
    };
    const view = await bySession("ops");
    expect(view).toMatchObject({ lock: other, owner: "the secret project", hops: 2 });
    expect(await byCall("ops")).toEqual(view);
    const withheld = { ...view, lock: "(not shown)", owner: "(not shown)" };
    expect(await bySession("eyes")).toEqual(withheld);
    expect(await byCall("eyes")).toEqual(withheld);
  });

  it("is the name of none that the caller may not see: who waits for whom in a deadlock", async () => {
    const { client } = await start(all);
    const first = await holding(client, "none", "ci/b", "one");
    const second = await holding(client, "none", other, "two");
    const third = await holding(client, "ci", mine, "three");
    void waitFor(first, other);
    await waiters(client, other, 1);
    void waitFor(second, mine);
    await waiters(client, mine, 1);
    const [refused] = await waitFor(third, "ci/b");
    expect(refused?.failure?.reason).toBe("DEADLOCK");
    const knot = refused?.failure?.knot?.map(({ owner, waitsFor, holds }) => ({ owner, waitsFor, holds }));
    expect(knot).toEqual([
      { owner: "one", waitsFor: ["(not shown)"], holds: ["ci/b"] },
      { owner: "two", waitsFor: [mine], holds: ["(not shown)"] },
      { owner: "three", waitsFor: ["ci/b"], holds: [mine] },
    ]);
    expect(refused?.failure?.message).toContain('(one) waits for "(not shown)" and keeps "ci/b"');
    expect(JSON.stringify(refused)).not.toContain(other);
  });
});

describe("a quota", () => {
  it("of requests refuses what is too much with the time to wait, by calls and by sessions, and of nobody else", async () => {
    const { client } = await start(
      `${RULES}quotas: [{ principal: token/ci, requestsPerSecond: 1, requestsBurst: 4 }]\n`,
    );
    const describe = { name: mine };
    const denied = () => ask(client, "ci", "LockService/DescribeLock", v1.DescribeLockRequest, describe);
    for (let i = 0; i < 3; i++) expect(await denied()).toBe("DENIED"); // which costs as much
    const session = new Session(client, "ci"); // the fourth
    const [result] = await session.send({ tick: { count: 1 } });
    expect(result?.failure?.reason).toBe("LIMIT");
    expect(result?.failure?.retryAfterMs).toBeGreaterThan(0);
    expect(result?.failure?.retryAfterMs).toBeLessThanOrEqual(1_000);
    const status = await new Promise<ReturnType<typeof reasonOf>>((resolve) =>
      client.makeUnaryRequest("/leasehold.v1.AdminService/Status", raw, raw, Buffer.alloc(0), headers("ci"), (error) =>
        resolve(error === null ? undefined : reasonOf(error)),
      ),
    );
    expect(status).toMatchObject({ reason: "LIMIT", message: "token/ci makes more than its 1 requests a second" });
    expect(status?.retryAfterMs).toBeGreaterThan(0);
    for (let i = 0; i < 10; i++) {
      expect(await ask(client, "eyes", "LockService/DescribeLock", v1.DescribeLockRequest, describe)).toBe("OK");
    }
    await until(async () => (await session.reasons({ tick: { count: 1 } }))[0] === "OK", 10_000, "time has passed");
  });

  it("of requests pays for connections, too", async () => {
    // A connection is four requests.
    const quota = "{ principal: token/ci, requestsPerSecond: 100, requestsBurst: 10 }";
    const { client, server } = await start(`${RULES}quotas: [${quota}]\n`);
    const describe = { name: mine };
    const clients = [client, ...Array.from({ length: 59 }, () => connection(server.address, {}))];
    onTestFinished(() => clients.forEach((one) => void one.close()));
    const startedMs = performance.now();
    let [served, lastMs] = [0, startedMs];
    const call = async (by: Client) => {
      const answer = await ask(by, "ci", "LockService/DescribeLock", v1.DescribeLockRequest, describe);
      if (answer === "DENIED") [served, lastMs] = [served + 1, performance.now()];
    };
    await Promise.all(clients.map(call));
    expect(served).toBeGreaterThan(0);
    expect(served * 4).toBeLessThanOrEqual(10 + 0.1 * (lastMs - startedMs));
  });

  it("of locks, leases and waiters refuses one more, until one is given back", async () => {
    const { client } = await start(
      `${RULES}  - { principal: token/none, prefix: "", verbs: [acquire] }
quotas: [{ principal: token/ci, leases: 1, locks: 1, waiters: 1 }]\n`,
    );
    const holder = { sessionLease: 1, mode: 1 };
    const others = new Session(client, "none");
    await others.send(
      { createLease: lease },
      { acquire: { name: "ci/1", ...holder } },
      { acquire: { name: "ci/2", ...holder } },
    );
    const session = new Session(client, "ci");
    expect(await session.reasons({ createLease: lease }, { createLease: lease })).toEqual(["OK", "LIMIT"]);
    const [held, more] = await session.send(
      { acquire: { name: mine, ...holder } },
      { acquire: { name: "ci/b", ...holder } },
    );
    expect(more?.failure?.reason).toBe("LIMIT");
    const waiting = (name: string) => ({ acquire: { name, ...holder, waitMs: 60_000 } });
    const first = session.send(waiting("ci/1"));
    expect(await session.reasons(waiting("ci/2"))).toEqual(["LIMIT"]);
    const token = held?.acquire?.grant?.token as number;
    expect(await session.reasons({ release: { name: mine, token } })).toEqual(["OK"]);
    void first;
  });

  it("of open watches leaves room for others", async () => {
    const { client } = await start();
    const answers = await Promise.all(Array.from({ length: 110 }, () => watch(client, "eyes", { prefix: "ci/" })));
    expect(answers.filter((answer) => answer === "OK").length).toBe(100);
    expect(answers.filter((answer) => answer === "LIMIT").length).toBe(10);
    expect(await watch(client, "ops", { prefix: "" })).toBe("OK");
  });
});

describe("the audit log", () => {
  it("has every refusal and every act of an administrator, with who, from where, and which request", async () => {
    const { client, audit, auditLog } = await start();
    await ask(client, "ci", "LockService/Acquire", v1.AcquireRequest, { name: mine, mode: 1, ...lease });
    await ask(client, "ci", "LockService/Acquire", v1.AcquireRequest, { name: other, mode: 1, ...lease }, "request-1");
    await ask(client, "ci", "LockService/ListLocks", v1.ListLocksRequest, { prefix: "p" }, "request-2");
    const force = { name: mine, now: true, reason: "stuck" };
    await ask(client, "ci", "AdminService/ForceRelease", v1.ForceReleaseRequest, force, "request-3");
    await ask(client, "ops", "AdminService/ForceRelease", v1.ForceReleaseRequest, force, "request-4");
    await ask(client, "ops", "AdminService/SetLogLevel", v1.SetLogLevelRequest, { level: "trace" }, "request-5");
    const nobody = new Metadata();
    nobody.set("authorization", `Bearer ${secret("lh_guess-guess-guess-guess-guess-guess-guess")}`);
    nobody.set("x-request-id", "request-6");
    await new Promise<void>((resolve) =>
      client.makeUnaryRequest("/leasehold.v1.AdminService/Status", raw, raw, Buffer.alloc(0), nobody, () => resolve()),
    );
    await until(() => audit().length >= 7, 10_000, "all of it is written");
    const stable = ({ time, address, ...rest }: Record<string, unknown>) => {
      expect(time).toMatch(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/);
      if (rest.event !== "policy_read") expect(address).toMatch(/^127\.0\.0\.1:\d+$/);
      return rest;
    };
    const denied = { event: "denied", principal: "token/ci" };
    const acted = { principal: "token/ops", outcome: "OK" };
    expect(audit().map(stable)).toEqual([
      { event: "policy_read", file: expect.any(String) },
      { ...denied, requestId: "request-1", verb: "acquire", lock: other },
      { ...denied, requestId: "request-2", verb: "observe", prefix: "p" },
      { ...denied, requestId: "request-3", verb: "admin", lock: mine },
      expect.objectContaining({
        event: "force_release",
        lock: mine,
        reason: "stuck",
        requestId: "request-4",
        ...acted,
      }),
      expect.objectContaining({ event: "log_level", level: "trace", requestId: "request-5", ...acted }),
      { event: "unauthenticated", requestId: "request-6", why: "unknown" },
    ]);
    const text = readFileSync(auditLog, "utf8");
    for (const token of [...Object.values(TOKENS), "lh_guess"]) expect(text).not.toContain(token);
  });
});

// The SDK with credentials that change while it holds locks, and with such as are not accepted.
import { writeFileSync } from "node:fs";
import { connect, LeaseholdError } from "@leasehold/client";
import { afterAll, describe, expect, it, onTestFinished } from "vitest";
import { Network } from "../e2e/support.js";
import { until } from "../services/processes.mjs";
import { expectNoSecretLogged, file, secret, serve, tokenLine } from "./support.js";

afterAll(expectNoSecretLogged);

const first = secret("lh_first-first-first-first-first-first-first-fi");
const second = secret("lh_second-second-second-second-second-second-se");

async function client(...args: Parameters<typeof connect>) {
  const connected = await connect(...args);
  onTestFinished(() => connected.close({ timeout: "100ms" }));
  const states: string[] = [];
  connected.on("state", (state) => states.push(state));
  return { client: connected, states };
}

const failure = (promise: Promise<unknown>): Promise<LeaseholdError> =>
  promise.then(
    () => Promise.reject(new Error("it succeeded")),
    (error) => (LeaseholdError.is(error) ? error : Promise.reject(error)),
  );

const delayed = <T>(value: T) => new Promise<T>((resolve) => setImmediate(() => resolve(value)));

describe("a token", () => {
  it("is shown by whoever has it, as text or by a function", async () => {
    const { address } = await serve({ authTokens: file(tokenLine("ci", first)) });
    for (const token of [first, () => first, async () => first, () => delayed(first)]) {
      const { client: mine } = await client(address, { token });
      await using lock = await mine.acquire("a");
      expect(lock.state.is).toBe("held");
      for await (const event of mine.watch({ prefix: "" })) {
        expect(event).toBeDefined();
        break;
      }
    }
  });

  it("is DENIED at once when it is not known, missing, or cannot be had", async () => {
    const { address } = await serve({ authTokens: file(tokenLine("ci", first)) });
    const timeout = "60s"; // it is not waited for
    expect(await failure(connect(address, { timeout }))).toMatchObject({ code: "DENIED", reason: "UNAUTHENTICATED" });
    expect(await failure(connect(address, { timeout, token: second }))).toMatchObject({
      ...{ code: "DENIED", reason: "UNAUTHENTICATED", retryable: false, message: "the bearer token is not known" },
    });
    for (const token of [
      () => Promise.reject(new Error("no vault")),
      () => {
        throw new Error("no vault");
      },
    ]) {
      expect(await failure(connect(address, { timeout, token }))).toMatchObject({
        ...{ code: "DENIED", message: "the token could not be had: no vault" },
      });
    }
    for (const token of [() => "", () => "a b", () => undefined as never, async () => `${first}\n`]) {
      expect(await failure(connect(address, { timeout, token }))).toMatchObject({
        ...{ code: "DENIED", message: "the function that should give a token gave none" },
      });
    }
  });

  it("is never sent unencrypted to another machine", async () => {
    let asked = 0;
    const token = () => {
      asked += 1;
      return first;
    };
    const refused = await failure(connect("192.0.2.1:7420", { tls: false, token }));
    expect(refused).toMatchObject({ code: "INVALID", message: expect.stringContaining("without encryption") });
    const among = await failure(connect(["localhost:1", "192.0.2.1:7420"], { tls: false, token: first }));
    expect(among).toMatchObject({ code: "INVALID" });
    expect(among.message).not.toContain(first);
    expect(asked).toBe(0);
    for (const wrong of [7, {}, null, "a b", "", `${first}\n`]) {
      const error = await failure(connect("localhost:1", { token: wrong as never }));
      expect(error).toMatchObject({ code: "INVALID" });
      expect(error.message).not.toContain(first);
    }
  });
});

describe("tokens that are exchanged", () => {
  /** A server that knows the first token, and how it comes to know only the second. */
  async function exchangeable() {
    const authTokens = file(tokenLine("ci", first));
    const { address } = await serve({ authTokens });
    const exchange = () => writeFileSync(authTokens, tokenLine("ci", second));
    return { address, authTokens, exchange };
  }

  it("are asked for anew: locks, waits and watches survive", async () => {
    const { address, exchange } = await exchangeable();
    let token = first;
    const { client: mine, states } = await client(address, { token: () => delayed(token) });
    const held = await mine.acquire("a");
    const waiting = mine.acquire("a", { wait: "30s", lease: await mine.lease() });
    const events: string[] = [];
    const stop = new AbortController();
    onTestFinished(() => stop.abort());
    const watching = (async () => {
      for await (const event of mine.watch({ name: "a" }, { signal: stop.signal })) events.push(event.type);
    })().catch((error) => void (stop.signal.aborted || Promise.reject(error)));
    await until(() => events.length > 0, { what: "the watch begins" });
    token = second;
    exchange();
    await until(() => states.includes("connected"), { what: "the client has connected anew" });
    expect(held.state.is).toBe("held");
    const before = events.length;
    expect(await held.release()).toBe(true);
    const next = await waiting;
    expect(next.token).toBe(held.grant.token + 1);
    await until(() => events.slice(before).includes("granted"), { what: "the watch goes on" });
    await next.release();
    stop.abort();
    await watching;
  });

  it("are DENIED where the client has none but the old one: it is not tried for ever", async () => {
    const { address, exchange } = await exchangeable();
    const { client: mine, states } = await client(address, { token: first, ttl: "1s" });
    const held = await mine.acquire("a");
    const watch = mine.watch({ prefix: "" })[Symbol.asyncIterator]();
    await watch.next();
    exchange();
    await until(() => states.includes("disconnected"), { what: "the session's stream ends" });
    expect(await failure(mine.acquire("b"))).toMatchObject({ code: "DENIED", reason: "UNAUTHENTICATED" });
    const watched = (async () => {
      for (;;) await watch.next();
    })();
    expect(await failure(watched)).toMatchObject({ code: "DENIED", reason: "UNAUTHENTICATED" });
    await until(() => held.state.is === "lost", { what: "the lock is lost with its lease" });
    await until(() => states.at(-1) === "idle", { what: "the client gives up" });
  });

  it("are found again when they could not be had for a while", async () => {
    const { address, exchange } = await exchangeable();
    let token: string | null = first;
    let failed = 0;
    const source = () => {
      if (token !== null) return token;
      failed += 1;
      throw new Error("no vault");
    };
    const { client: mine, states } = await client(address, { token: source, ttl: "30s" });
    const held = await mine.acquire("a");
    token = null;
    exchange();
    await until(() => failed >= 2, { what: "it asks again" });
    token = second;
    await until(() => states.includes("connected"), { what: "the client has connected anew" });
    expect(held.state.is).toBe("held");
    expect(await held.release()).toBe(true);
  });
});

describe("a quota of requests", () => {
  it("makes a client that asks for more at once wait, and in the end it has everything", async () => {
    const policy = `rules: [{ principal: token/ci, prefix: "", verbs: [acquire, observe] }]
quotas: [{ principal: token/ci, requestsPerSecond: 100, requestsBurst: 10 }]
`;
    const { address } = await serve({ authTokens: file(tokenLine("ci", first)), policy: file(policy) });
    const { client: mine } = await client(address, { token: first });
    const names = Array.from({ length: 60 }, (_, i) => `lock/${i}`);
    const locks = await Promise.all(names.map((name) => mine.acquire(name, { wait: "30s" })));
    expect(locks.map(({ state }) => state.is)).toEqual(names.map(() => "held"));
    expect(await Promise.all(locks.map((lock) => lock.release()))).toEqual(names.map(() => true));
  });

  it("does not keep a client from coming back with more than its burst that it waits for", async () => {
    const policy = `rules: [{ principal: "*", prefix: "", verbs: [acquire, observe] }]
quotas: [{ principal: token/ci, requestsPerSecond: 20, requestsBurst: 10 }]
`;
    const authTokens = file(tokenLine("ci", first) + tokenLine("ops", second));
    const { address } = await serve({ authTokens, policy: file(policy) });
    const network = await Network.to(address);
    const { client: holder } = await client(address, { token: second });
    const { client: mine, states } = await client(network.address, { token: first, ttl: "5s" });
    const kept = await mine.acquire("kept");
    const names = Array.from({ length: 30 }, (_, i) => `lock/${i}`);
    const held = await Promise.all(names.map((name) => holder.acquire(name)));
    const waits = names.map((name) => mine.acquire(name, { wait: "20s" }));
    const waited = async () =>
      (await Promise.all(names.map((name) => holder.describe(name)))).map((d) => d.waitersTotal);
    await until(async () => !(await waited()).includes(0), { what: "all of them wait" });
    network.cut();
    await until(() => states.at(-1) === "connected" && states.length > 1, { what: `the client is back (${states})` });
    await Promise.all(held.map((lock) => lock.release()));
    const locks = await Promise.all(waits);
    expect(kept.state.is).toBe("held");
    expect(locks.map(({ state }) => state.is)).toEqual(names.map(() => "held"));
  });
});

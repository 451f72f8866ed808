/** Watching a real server: every event in order, over cut connections and killed servers, and its resets honest. */
import { expect, onTestFinished, test } from "vitest";
import {
  type Client,
  type ConnectOptions,
  connect,
  type WatchEvent,
  type WatchOptions,
} from "../../src/client/index.js";
import { Network, ServerProcess, temporaryFolder, until } from "./support.js";

async function client(address: string, options: ConnectOptions = {}): Promise<Client> {
  const connected = await connect(address, options);
  connected.on("warning", () => undefined);
  onTestFinished(() => connected.close({ timeout: "1s" }));
  return connected;
}

const newServer = async (...flags: string[]) => ServerProcess.start(`level:${await temporaryFolder()}/data`, ...flags);

/** Follows all locks until the test is over. What it has seen grows. */
function follow(watcher: Client, options?: WatchOptions): WatchEvent[] {
  const seen: WatchEvent[] = [];
  const loop = async () => {
    for await (const event of watcher.watch({ prefix: "" }, options)) seen.push(event);
  };
  void loop().catch(() => undefined);
  return seen;
}

const synced = (seen: readonly WatchEvent[]) => until(() => seen.some((event) => event.type === "synced"));

const words = (seen: readonly WatchEvent[]) =>
  seen.map((event) => ("name" in event ? `${event.type} ${event.name}` : event.type));

/** Who holds what, by what a watch has told. */
function holds(seen: readonly WatchEvent[]): Map<string, number[]> {
  const held = new Map<string, number[]>();
  for (const event of seen) {
    if (event.type === "reset") held.clear();
    if (event.type === "state") {
      held.set(
        event.name,
        event.holders.map(({ token }) => token),
      );
    }
    if (event.type === "granted") held.set(event.name, [...(held.get(event.name) ?? []), event.holder.token]);
    if ("token" in event) {
      held.set(
        event.name,
        (held.get(event.name) ?? []).filter((token) => token !== event.token),
      );
    }
  }
  for (const [name, tokens] of held) if (tokens.length === 0) held.delete(name);
  return held;
}

/** Timestamps rise from one reset to the next; so do tokens, for good. */
function checkOrder(seen: readonly WatchEvent[]): void {
  let timestamp = 0;
  let token = 0;
  for (const event of seen) {
    if (event.type === "reset") timestamp = 0;
    expect(event.timestamp, JSON.stringify(event)).toBeGreaterThanOrEqual(timestamp);
    timestamp = event.timestamp;
    if (event.type !== "granted") continue;
    expect(event.holder.token, "tokens rise").toBeGreaterThan(token);
    token = event.holder.token;
  }
}

test("a watcher sees the state, and then what happens, in order", async () => {
  const server = await newServer();
  const [holder, other] = [await client(server.address), await client(server.address)];
  const old = await holder.acquire("a", { owner: "alice", metadata: "why" });
  const seen = follow(await client(server.address));
  await synced(seen);
  const state = seen.find((event) => event.type === "state");
  expect(state).toMatchObject({ name: "a", holders: [{ token: old.token, owner: "alice" }], waitersTotal: 0 });
  const next = other.acquire("a", { owner: "bob" });
  await until(() => seen.at(-1)?.type === "queued");
  await old.release();
  await (await next).release();
  await expect(other.acquire("b", { wait: 0 }).then((lock) => lock.release())).resolves.toBe(true);
  await until(() => words(seen).at(-1) === "released b");
  expect(words(seen)).toEqual([
    ...["reset", "state a", "synced", "queued a", "released a", "granted a", "released a"],
    ...["granted b", "released b"],
  ]);
  const queued = seen[3] as Extract<WatchEvent, { type: "queued" | "dequeued" }>;
  expect(queued.waiter.owner).toBe("bob");
  expect(seen[5]).toMatchObject({ ticketId: queued.waiter.ticketId, holder: { owner: "bob" } });
  checkOrder(seen);
});

test("a watcher whose connection is cut again and again misses nothing", async () => {
  const server = await newServer();
  const network = await Network.to(server.address);
  const [quiet, flaky, holder] = [
    await client(server.address),
    await client(network.address),
    await client(server.address),
  ];
  const [all, cut] = [follow(quiet), follow(flaky)];
  await Promise.all([synced(all), synced(cut)]);
  for (let i = 1; i <= 300; i++) {
    await holder.withLock(`lock/${i % 7}`, () => undefined);
    if (i % 30 === 0) network.cut();
  }
  await until(() => all.length === 602 && cut.length === 602);
  expect(cut.slice(2).map(({ type, timestamp }) => [type, timestamp])).toEqual(
    all.slice(2).map(({ type, timestamp }) => [type, timestamp]),
  );
  checkOrder(cut);
});

test("another process goes on where one has stopped", async () => {
  const server = await newServer();
  const [first, second, holder] = [
    await client(server.address),
    await client(server.address),
    await client(server.address),
  ];
  const tokens: number[] = [];
  let position = 0;
  for (let round = 0; round < 5; round++) {
    for (let i = 0; i < 3; i++) await holder.withLock(`l${i}`, () => undefined);
    const watcher = round % 2 ? first : second;
    for await (const event of watcher.watch({ prefix: "l" }, { after: position })) {
      position = event.position;
      if (event.type === "granted") tokens.push(event.holder.token);
      // The first time it begins with the state, which is that all is over.
      if (event.type === "synced" || (round > 0 && tokens.length === 3 * round)) break;
    }
  }
  expect(tokens).toEqual(Array.from({ length: 12 }, (_, i) => i + 4));
});

test("after a kill -9 of the server a watcher goes on, or is told so and gets the state", async () => {
  const server = await newServer();
  const [watcher, holder] = [await client(server.address), await client(server.address)];
  const seen = follow(watcher);
  await synced(seen);
  const kept = await holder.acquire("kept");
  for (let round = 0; round < 5; round++) {
    const working = Promise.all(
      Array.from({ length: 20 }, (_, i) => holder.withLock(`w${i % 4}`, () => undefined).catch(() => undefined)),
    );
    await server.kill();
    await server.restart();
    await working;
    const after = await holder.acquire(`after ${round}`);
    await until(() => words(seen).includes(`granted after ${round}`) || holds(seen).has(`after ${round}`));
    checkOrder(seen);
    expect(holds(seen).get("kept")).toEqual([kept.token]);
    expect(holds(seen).get(`after ${round}`)).toEqual([after.token]);
    await after.release();
  }
  await until(() => holds(seen).size === 1, 20_000, "all but one is released");
});

test("a loop that is too slow is told so, gets the state, and holds nobody up", async () => {
  const server = await newServer();
  const [watcher, holder] = [await client(server.address), await client(server.address)];
  const events = watcher.watch({ prefix: "" })[Symbol.asyncIterator]();
  expect((await events.next()).value).toMatchObject({ type: "reset", reason: "start" });
  const kept = await holder.acquire("kept", { metadata: "x".repeat(4_000) });
  await until(
    async () => {
      await Promise.all(
        Array.from({ length: 500 }, (_, i) =>
          holder.withLock(`l${i}`, { metadata: "x".repeat(1_000) }, () => undefined),
        ),
      );
      return (await server.metric("leasehold_watch_lagged_total")) > 0;
    },
    40_000,
    "the server gives up on it",
  );
  const seen: WatchEvent[] = [];
  for (let lagged = false, state = false; !state; ) {
    const { value } = await events.next();
    if (!value) throw new Error("it has ended");
    seen.push(value);
    if (value.type === "reset") lagged = true;
    state = lagged && value.type === "synced";
  }
  expect(seen.find((event) => event.type === "reset")).toMatchObject({ reason: "lagged", position: 0 });
  expect([...holds(seen)]).toEqual([["kept", [kept.token]]]);
  checkOrder(seen);
  await kept.release();
  expect((await events.next()).value).toMatchObject({ type: "released", token: kept.grant.token });
  await events.return?.();
});

/** The hub behind the real sequencer and the real core: what watchers keep is what the server says. */
import { decode, encode, type leasehold, type StatusDetails, v1 } from "@leasehold/client/wire";
import { expect, test } from "vitest";
import { defaultConfig } from "../../src/server/config/schema.js";
import type { Acquire, LockItem, LockMode, Outcome, Request } from "../../src/server/core/types.js";
import { inMemoryTransport } from "../../src/server/rpc/in-memory.js";
import { watchLimitDefaults } from "../../src/server/rpc/limits.js";
import { startServer } from "../../src/server/server.js";
import { WatchHub } from "../../src/server/watch/hub.js";
import { numbers, seedFromEnvironment } from "../journal/random.js";
import { TestClient, until } from "../rpc/support.js";
import { type FakeRoute, Harness, limits, settle } from "../sequencer/harness.js";
import { Reader } from "./reader.js";
import { plain, stateOf } from "./store.js";

const names = Array.from({ length: 12 }, (_, i) => `lock/${i}`);
const modes: LockMode[] = ["exclusive", "exclusive", "shared", "semaphore"];

class Server {
  readonly hub: WatchHub;

  private constructor(
    readonly harness: Harness,
    hub: WatchHub,
  ) {
    this.hub = hub;
  }

  static async start(): Promise<Server> {
    let hub: WatchHub | undefined;
    const harness = new Harness({
      limits: { ...limits, waitersPerLockMax: 10, holdersPerLockMax: 10, expirySliceMax: 2 }, // all that there are fit into a STATE
      observer: {
        commit: () => undefined,
        event: (event) => hub?.event(event),
        told: (timestamp) => hub?.tellTo(timestamp),
        storeFailed: () => hub?.closeAll({ reason: "STORE_DOWN", message: "failed", retryAfterMs: 1 }),
        storeRecovered: (_records, timestamp) => hub?.restart(timestamp),
      },
    });
    hub = new WatchHub({
      sink: harness.sequencer,
      limits: { ...watchLimitDefaults, watchHistoryEventsMax: 200, watcherQueueEventsMax: 30 },
      turns: harness.turns,
      wallMs: () => 0,
    });
    await harness.sequencer.start();
    return new Server(harness, hub);
  }
}

const first = seedFromEnvironment();

test(`random commands, expiries, failures of the store and slow readers end in the true state (seed ${first})`, async () => {
  for (let seed = first; seed < first + 60; seed++) {
    try {
      await run(seed);
    } catch (error) {
      throw new Error(`LEASEHOLD_SEED=${seed}`, { cause: error });
    }
  }
});

test("a whole server tells its watchers what happens, and that it stops", async () => {
  const server = await startServer(
    defaultConfig({ listen: "127.0.0.1:0", opsListen: "127.0.0.1:0", store: "memory:" }),
  );
  const client = new TestClient(server.address);
  const events: leasehold.v1.WatchEvent.$Properties[] = [];
  const ends: StatusDetails[] = [];
  inMemoryTransport(server).openWatch(0, encode(v1.WatchRequest, { prefix: "n" }), {
    onFrame: (bytes) => events.push(...decode(v1.WatchResponse, bytes).events),
    onEnd: (status) => ends.push(status),
  });
  await until("the state", () => events.length === 2);
  await client.acquire({ name: "n", ttlMs: 60_000 });
  await until("the grant", () => events.length === 3);
  expect(events[2]).toMatchObject({ kind: v1.WatchEventKind.WATCH_EVENT_KIND_GRANTED, holders: [{ token: 1 }] });
  const scraped = await fetch(`http://${server.opsAddress}/metrics`);
  expect(await scraped.text()).toMatch(/^leasehold_watchers 1$/m);
  client.close();
  await server.stop();
  expect(ends).toMatchObject([{ reason: "CLOSED" }]);
});

async function run(seed: number): Promise<void> {
  const random = numbers(seed);
  const below = (n: number) => random() % n;
  const pick = <T>(values: readonly T[]) => values[below(values.length)] as T;
  const server = await Server.start();
  const { harness } = server;
  const { disk, turns } = harness;
  const readers = [
    new Reader(server, { kind: "prefix", prefix: "" }, true).watch(),
    new Reader(server, { kind: "prefix", prefix: "lock/1" }, true).watch(),
    new Reader(server, { kind: "name", name: "lock/3" }, true).watch(),
  ];
  const acquires: FakeRoute[] = [];
  let requests = 0;

  const acquire = (): Acquire => {
    const all = below(4) === 0;
    const count = all ? 1 + below(4) : 1;
    const wanted = [...names].sort(() => below(3) - 1).slice(0, count);
    const items = wanted.map((name): LockItem => {
      const mode = pick(modes);
      const semaphore = mode === "semaphore";
      return { name, mode, permits: semaphore ? 1 + below(2) : 0, permitLimit: semaphore ? 2 + below(2) : 0 };
    });
    return {
      kind: "acquire",
      items,
      all,
      holder: { kind: "own", leaseId: `own-${++requests}`, ttlMs: 500 + below(3_000) },
      waitMs: below(3) === 0 ? 0 : 60_000,
      pollMs: 60_000,
      requestId: `r${requests}`,
      owner: "",
      metadata: "",
      wallMs: 0,
      lockDelayMs: below(4) === 0 ? below(300) : 0,
      maxHoldMs: below(4) === 0 ? 100 + below(1_000) : 0,
      contenderId: "",
      heldTokens: [],
    };
  };
  const granted = () =>
    acquires.flatMap(({ outcomes: [outcome] }) => (outcome?.kind === "grant" ? outcome.grants : []));
  const request = (): Request => {
    const hold = pick(granted());
    const { name, token } = hold ?? { name: pick(names), token: 1 };
    switch (below(10)) {
      case 0:
        return { kind: "forceRelease", name, token: 0, message: "", now: below(2) === 0 };
      case 1:
        return { kind: "downgrade", name, token };
      case 2:
        return { kind: "setMetadata", name, token, metadata: "aGk=" };
      case 3:
        return { kind: "transfer", name, token, ticketId: `T${1 + below(200)}` };
      case 4:
        return {
          kind: "cancelAcquire",
          target: { kind: "request", requestId: `r${1 + below(requests + 1)}`, leaseId: "" },
        };
      case 5:
        return {
          kind: "revokeLease",
          lease: { kind: "lease", leaseId: `own-${1 + below(requests + 1)}` },
          expired: false,
        };
      default:
        return { kind: "release", name, token };
    }
  };

  for (let i = 0; i < 250; i++) {
    const choice = below(20);
    if (choice < 6) acquires.push(harness.call(acquire()));
    else if (choice < 11) harness.call(request());
    else if (choice < 13) pick(readers).pause();
    else if (choice < 15) pick(readers).resume();
    else if (choice === 15 && below(3) === 0) pick(readers).reconnect();
    else if (choice === 16) await turns.run(below(400));
    else if (choice === 17) await settle();
    else if (choice === 18) await turns.turn();
    else if (below(8) === 0) {
      disk.manual = true;
      acquires.push(harness.call(acquire()));
      await settle();
      disk.manual = false;
      if (disk.pending) await disk.fail(below(2) === 0);
      await turns.run(500);
    }
    for (const reader of readers) if (reader.failure !== null) reader.reconnect();
  }

  for (const reader of readers) reader.resume();
  await turns.run(500);
  for (const reader of readers) if (reader.failure !== null) reader.reconnect();
  for (const reader of readers) await converge(harness, reader);
}

/** What hung on a dead lease is absent at once, and told to have ended only when it is cleared away. */
async function converge(harness: Harness, reader: Reader): Promise<void> {
  const { target } = reader;
  const prefix = target.kind === "name" ? target.name : target.prefix;
  for (let tries = 0; ; tries++) {
    await harness.turns.run(40);
    const route = harness.call({ kind: "listLocks", prefix, after: "", limit: 1_000, wallMs: 0 });
    const listed: Outcome = await harness.done(route);
    if (listed.kind !== "locks") throw new Error(listed.kind);
    const truth = listed.locks.filter(({ name }) => target.kind === "prefix" || name === target.name);
    const expected = plain(new Map(truth.map((lock) => [lock.name, stateOf(lock)])));
    if (tries < 20 && (!reader.synced || JSON.stringify(plain(reader.state)) !== JSON.stringify(expected))) continue;
    expect(reader.synced).toBe(true);
    expect(plain(reader.state)).toEqual(expected);
    return;
  }
}

/**
 * Whatever the order of events, pages, batches, restarts and reads: who keeps what it is told, and comes back with its
 * position, ends up with the true state. The reader checks each single entry against what it was told before.
 */
import { expect, test } from "vitest";
import { numbers, seedFromEnvironment } from "../journal/random.js";
import { Reader } from "./reader.js";
import { plain, type State, Store } from "./store.js";

const names = ["a", "a/1", "a/2", "a/3", "b", "b/1", "c", "d"];
const targets = [
  { kind: "prefix", prefix: "" },
  { kind: "prefix", prefix: "a/" },
  { kind: "prefix", prefix: "b" },
  { kind: "name", name: "a" },
  { kind: "name", name: "b/1" },
] as const;

const RUNS = 300;

test("random interleavings end in the true state", () => {
  const first = seedFromEnvironment();
  const seen = { lagged: 0, forgotten: 0, resumed: 0 };
  for (let seed = first; seed < first + RUNS; seed++) {
    try {
      run(seed, seen);
    } catch (error) {
      throw new Error(`LEASEHOLD_SEED=${seed}`, { cause: error });
    }
  }
  for (const [what, count] of Object.entries(seen)) expect(count, `${what}, from seed ${first}`).toBeGreaterThan(0);
});

function run(seed: number, seen: { lagged: number; forgotten: number; resumed: number }): void {
  const random = numbers(seed);
  const below = (n: number) => random() % n;
  const pick = <T>(values: readonly T[]) => values[below(values.length)] as T;
  const store = new Store({
    watchHistoryEventsMax: pick([0, 5, 30, 1_000]),
    watchHistoryBytesMax: pick([20_000, 1_000_000]),
    watcherQueueEventsMax: pick([1, 3, 20]),
  });
  store.pageMax = 1 + below(3);
  const readers = targets.map((target) => new Reader(store, target).watch());
  const resume = (reader: Reader) => {
    if (reader.failure !== null && reader.position > 0) seen.resumed++;
    reader.reconnect();
  };

  const steps = 50 + below(400);
  for (let i = 0; i < steps; i++) {
    const choice = below(100);
    if (choice < 45) change(store, pick, below);
    else if (choice < 65) store.commit();
    else if (choice < 80) store.turns.turn();
    else if (choice < 86) pick(readers).pause();
    else if (choice < 93) pick(readers).resume();
    else if (choice < 96) resume(pick(readers));
    else if (choice < 98) store.turns.beat();
    else if (choice === 98) store.tick(below(5));
    else if (below(5) === 0) {
      store.restart();
      for (const reader of readers) resume(reader);
    }
  }

  for (const reader of readers) {
    reader.resume();
    if (reader.failure !== null) resume(reader);
  }
  store.settle();
  for (const reader of readers) {
    expect(reader.synced).toBe(true);
    expect(reader.pushed).toBe(0);
    expect(plain(reader.state)).toEqual(plain(watched(store.state, reader)));
    for (const entry of reader.entries) {
      if (entry.kind === "reset" && entry.reason !== "start") seen[entry.reason]++;
    }
  }
}

function change(store: Store, pick: <T>(values: readonly T[]) => T, below: (n: number) => number): void {
  store.metadata = below(10) === 0 ? "m".repeat(20_000) : "";
  const name = pick(names);
  const lock = store.state.get(name);
  const tokens = [...(lock?.tokens ?? [])];
  const tickets = [...(lock?.tickets ?? [])];
  switch (below(7)) {
    case 0:
      store.grant(name);
      break;
    case 1:
      store.queue(name);
      break;
    case 2:
      if (tickets.length > 0) store.grant(name, pick(tickets));
      break;
    case 3:
      if (tickets.length > 0) store.dequeue(name, pick(tickets));
      break;
    case 4:
      if (tokens.length > 0 && tickets.length > 0) store.transfer(name, pick(tokens), pick(tickets));
      break;
    case 5:
      store.grantAll(names.filter(() => below(2) === 0));
      break;
    default:
      for (const token of tokens) store.end(name, token);
  }
}

function watched(state: State, { target }: Reader): State {
  const covered = (name: string) => (target.kind === "name" ? name === target.name : name.startsWith(target.prefix));
  return new Map([...state].filter(([name]) => covered(name)));
}

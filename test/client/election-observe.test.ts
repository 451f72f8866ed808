/** Observing an election: who is told, in which order, whatever happens to the connection. */
import { describe, expect, it } from "vitest";
import type { Leader } from "../../src/client/index.js";
import { type leasehold, v1 } from "../../src/client/wire/index.js";
import { Random } from "../core/sim/random.js";
import { seedFromEnvironment } from "../journal/random.js";
import { type Setup, setup, watch } from "./support.js";
import { holder, type ScriptedWatch, say } from "./watch-support.js";

type WireEvent = leasehold.v1.WatchEvent.$Properties;
const { RESET_REASON_START, RESET_REASON_LAGGED, RESET_REASON_FORGOTTEN } = v1.ResetReason;
const Kind = v1.WatchEventKind;

const short = (leader: Leader | null) => (leader ? `${leader.token}:${leader.valueText}` : "none");

/** A loop over an election, and all that it was told. */
function observe(s: Setup) {
  const told: string[] = [];
  const stop = new AbortController();
  const loop = async () => {
    for await (const leader of s.client.observe("e", { signal: stop.signal })) told.push(short(leader));
  };
  return { told, stop, ended: watch(loop()) };
}

describe("an observer", () => {
  it("is told who leads, and every change", async () => {
    const s = setup();
    const leaders: (Leader | null)[] = [];
    const loop = async () => {
      for await (const leader of s.client.observe("e")) leaders.push(leader);
    };
    void loop().catch(() => {});
    await s.time.settle();
    expect(s.server.watch.request).toMatchObject({ name: "e" });
    s.server.watch.push([say.reset(10), say.state(10, "e", [holder(3, "a", 7)]), say.synced(10)]);
    s.server.watch.push([say.updated(11, "e", 3, "b"), say.ended(12, "e", 3)]);
    s.server.watch.push([say.granted(13, "e", 4, "c")]);
    s.server.watch.push([say.transferred(14, "e", 4, 5, "d")]);
    await s.time.settle();
    expect(leaders.map(short)).toEqual(["3:a", "3:b", "none", "4:c", "5:d"]);
    expect(leaders[0]).toEqual({
      token: 3,
      timestamp: 7,
      owner: "owner-3",
      value: Buffer.from("a"),
      valueText: "a",
    });
    await s.client.close();
  });

  it("is told that nobody leads", async () => {
    const s = setup();
    const { told } = observe(s);
    await s.time.settle();
    s.server.watch.push([say.reset(10), say.synced(10)]);
    await s.time.settle();
    expect(told).toEqual(["none"]);
  });

  it("is told after a reset only what has changed", async () => {
    const s = setup();
    const { told } = observe(s);
    await s.time.settle();
    const { watch: stream } = s.server;
    stream.push([say.reset(10), say.state(10, "e", [holder(3, "a")]), say.synced(10)]);
    stream.push([say.reset(20, RESET_REASON_LAGGED), say.state(20, "e", [holder(3, "a")]), say.synced(20)]);
    await s.time.settle();
    expect(told).toEqual(["3:a"]);
    stream.push([say.reset(30, RESET_REASON_LAGGED), say.state(30, "e", [holder(3, "b")]), say.synced(30)]);
    stream.push([say.reset(40, RESET_REASON_LAGGED), say.state(40, "e", [holder(9, "b")]), say.synced(40)]);
    stream.push([say.reset(50, RESET_REASON_LAGGED), say.synced(50)]);
    stream.push([say.reset(60, RESET_REASON_LAGGED), say.synced(60)]);
    await s.time.settle();
    expect(told).toEqual(["3:a", "3:b", "9:b", "none"]);
  });

  it("sees no leader in those who hold the lock in another way", async () => {
    const s = setup();
    const { told } = observe(s);
    await s.time.settle();
    const shared = (token: number) => ({ ...holder(token), mode: v1.LockMode.LOCK_MODE_SHARED });
    s.server.watch.push([say.reset(10), say.state(10, "e", [shared(1), shared(2)]), say.synced(10)]);
    s.server.watch.push([{ ...say.granted(11, "e", 3), holders: [shared(3)] }, say.ended(12, "e", 3)]);
    s.server.watch.push([say.granted(13, "e", 4, "v")]);
    s.server.watch.push([{ kind: Kind.WATCH_EVENT_KIND_DOWNGRADED, timestamp: 14, name: "e", holders: [shared(4)] }]);
    await s.time.settle();
    expect(told).toEqual(["none", "4:v", "none"]);
  });

  it("is told when the store is an older one, since what follows would not be in order", async () => {
    const s = setup();
    const { told, ended } = observe(s);
    await s.time.settle();
    s.server.watch.push([say.reset(10), say.state(10, "e", [holder(9)]), say.synced(10)]);
    s.server.watch.push([say.reset(5, RESET_REASON_FORGOTTEN), say.state(5, "e", [holder(2)]), say.synced(5)]);
    await s.time.settle();
    expect(told).toEqual(["9:"]);
    expect(ended.error).toMatchObject({ code: "INVALID", reason: "CLUSTER_MISMATCH" });
    expect(s.server.watch.open).toBe(false);
  });

  it("who aborts is done", async () => {
    const s = setup();
    const { stop, ended } = observe(s);
    await s.time.settle();
    stop.abort();
    await s.time.settle();
    expect(ended.error).toBe(stop.signal.reason);
    expect(s.time.timers).toBe(0);
  });
});

/** An election, all that ever happened in it, and a server that remembers a part of that. */
class Election {
  readonly #random: Random;
  readonly #events: WireEvent[] = [];
  /** Who led after each change, as an observer should be told. */
  readonly changes: string[] = ["none"];
  #leader: { readonly token: number; value: string } | null = null;
  #timestamp = 10;
  #token = 0;
  /** What the stream has been sent. */
  #sent = 0;
  #base = 0;
  /** Something was not told. */
  gaps = false;
  /** Something was told again, although it was known. */
  repeats = false;

  constructor(random: Random) {
    this.#random = random;
  }

  /** Something happens. */
  step(): void {
    const leader = this.#leader;
    const what = leader === null ? "elected" : this.#random.pick(["updated", "transferred", "ended", "ended"]);
    const at = ++this.#timestamp;
    if (this.#random.chance(0.2)) {
      this.#events.push({ kind: Kind.WATCH_EVENT_KIND_QUEUED, timestamp: at, name: "e", waiters: [{ ticketId: "t" }] });
      return;
    }
    const value = this.#random.pick(["", "a", "b"]);
    const old = leader?.token ?? 0;
    if (what === "ended") {
      this.#leader = null;
      const kind = this.#random.pick([Kind.WATCH_EVENT_KIND_RELEASED, Kind.WATCH_EVENT_KIND_EXPIRED]);
      this.#events.push(say.ended(at, "e", old, kind));
    } else {
      const token = what === "updated" ? old : ++this.#token;
      this.#leader = { token, value };
      if (what === "updated") this.#events.push(say.updated(at, "e", token, value));
      else if (what === "transferred") this.#events.push(say.transferred(at, "e", old, token, value));
      else this.#events.push(say.granted(at, "e", token, value));
    }
    if (this.current !== this.changes.at(-1)) this.changes.push(this.current);
  }

  get current(): string {
    return this.#leader ? `${this.#leader.token}:${this.#leader.value}` : "none";
  }

  /** The server forgets what has happened. */
  forget(): void {
    this.#base = this.#timestamp;
  }

  /** A new stream. */
  answer(stream: ScriptedWatch): void {
    const after = stream.request.after ?? 0;
    this.#sent = this.#events.filter((event) => (event.timestamp ?? 0) <= after).length;
    if (after === 0) this.reset(stream, RESET_REASON_START);
    else if (after < this.#base) this.reset(stream, RESET_REASON_FORGOTTEN);
    else if (this.#random.chance(0.9)) stream.push([], after);
    else {
      this.#sent = 0;
      this.repeats = true;
    }
  }

  /** The state, as it is now, perhaps in several responses, of which the last may never come. */
  reset(stream: ScriptedWatch, reason: number): void {
    const at = this.#timestamp;
    if (this.#sent < this.#events.length) this.gaps = true;
    this.#sent = this.#events.length;
    const state = this.#leader ? [say.state(at, "e", [holder(this.#leader.token, this.#leader.value)])] : [];
    const parts = [[say.reset(at, reason)], state, [say.synced(at)]];
    if (this.#random.chance(0.5)) {
      stream.push(parts.flat());
      return;
    }
    for (const part of parts) {
      if (part.length > 0) stream.push(part, part === parts[2] ? at : 0);
      if (this.#random.chance(0.15)) {
        this.gaps = true;
        stream.break();
        return;
      }
    }
  }

  /** Some of what is yet to be told. */
  tell(stream: ScriptedWatch, all: boolean): void {
    while (stream.open && this.#sent < this.#events.length) {
      const batch = this.#events.slice(this.#sent, this.#sent + this.#random.between(1, 4));
      this.#sent += batch.length;
      const complete = this.#sent === this.#events.length && this.#random.chance(0.5);
      stream.push(batch, complete ? this.#timestamp : undefined);
      if (!all && this.#random.chance(0.5)) return;
    }
  }
}

const RUNS = process.env.LEASEHOLD_SEED === undefined ? 1_000 : 1;

/** One random history with one observer, who reads at random moments. */
async function history(seed: number): Promise<void> {
  const random = new Random(seed);
  const s = setup({}, { random: () => random.next() });
  const election = new Election(random);
  s.server.onWatch = (stream) => election.answer(stream);
  const told: string[] = [];
  const leaders = s.client.observe("e")[Symbol.asyncIterator]();
  const read = async () => {
    const pull = watch(leaders.next());
    await s.time.settle();
    return pull;
  };
  const note = (pull: Awaited<ReturnType<typeof read>>) => {
    if (pull.error !== undefined) throw pull.error;
    if (pull.value && !pull.value.done) told.push(short(pull.value.value));
    return pull.settled;
  };
  let pull = await read();
  for (let i = random.between(0, 60); i > 0; i--) {
    for (let n = random.between(0, 5); n > 0; n--) election.step();
    const { watch: stream } = s.server;
    if (stream.open && random.chance(0.8)) election.tell(stream, false);
    else if (random.chance(0.2)) election.forget();
    if (stream.open && random.chance(0.1)) stream.break();
    else if (stream.open && random.chance(0.05)) election.reset(stream, RESET_REASON_LAGGED);
    if (random.chance(0.5)) await s.time.advance(random.between(0, 300));
    while (random.chance(0.7) && note(pull)) pull = await read();
  }
  while (!s.server.watch.open) await s.time.advance(100);
  for (let quiet = 0; quiet < 3; quiet++) {
    await s.time.advance(3_000);
    election.tell(s.server.watch, true);
    for (await s.time.settle(); note(pull); quiet = 0) pull = await read();
  }
  check(told, election);
  await s.client.close();
}

function check(told: readonly string[], election: Election): void {
  const tokens = told.filter((leader) => leader !== "none").map((leader) => Number(leader.split(":")[0]));
  expect(tokens, "never an older leader after a newer one").toEqual([...tokens].sort((a, b) => a - b));
  expect(told.at(-1), "in the end the one who leads").toBe(election.current);
  expect(
    told.filter((leader, i) => leader === told[i - 1]),
    "changes only",
  ).toEqual([]);
  if (election.repeats) return;
  let from = 0;
  for (const leader of told) {
    const at = election.changes.indexOf(leader, from);
    expect(at, `${leader} led, and later than the one before`).toBeGreaterThanOrEqual(from);
    from = at + 1;
  }
  if (!election.gaps) expect(election.changes.slice(-told.length), "none left out").toEqual(told);
}

it("whatever happens, an observer never sees an older leader after a newer one, and ends up with the present one", async () => {
  const first = seedFromEnvironment();
  console.log(`seeds from ${first}: ${RUNS}`);
  for (let seed = first; seed < first + RUNS; seed++) {
    try {
      await history(seed);
    } catch (error) {
      throw new Error(`LEASEHOLD_SEED=${seed} repeats it`, { cause: error });
    }
  }
});

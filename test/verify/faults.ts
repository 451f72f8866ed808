/** Faults that are planted into correct histories, one for each rule. Null: this history has no place for it. */
import type { HistoryEntry, HistoryEvent, HistoryGrant, HistoryLock } from "../../src/client/index.js";
import type { Random } from "./generator.js";

type Fault = (events: readonly HistoryEvent[], random: Random) => HistoryEvent[] | null;
type Entry<O, T> = Extract<HistoryEvent, { readonly op: O; readonly type: T }>;

interface Known {
  readonly lock: HistoryLock;
  readonly grant: HistoryGrant;
  readonly call: HistoryEvent;
  readonly result: HistoryEvent;
  /** The last event that shows it. */
  lastNs: number;
  downgraded: boolean;
  ended: HistoryEvent | null;
}

const is = <O extends HistoryEvent["op"], T extends HistoryEvent["type"]>(event: HistoryEvent, op: O, type: T) =>
  event.op === op && event.type === type;

function pairs(events: readonly HistoryEvent[]): { readonly call: HistoryEvent; readonly result: HistoryEvent }[] {
  const open = new Map<string, HistoryEvent>();
  const found = [];
  for (const event of events) {
    const key = `${event.process} ${event.id}`;
    const call = open.get(key);
    if (event.type === "invoke") open.set(key, event);
    else if (call) found.push({ call, result: event });
  }
  return found;
}

/** What the history knows of each hold. */
function holdsOf(events: readonly HistoryEvent[]): Known[] {
  const holds = new Map<number, Known>();
  for (const { call, result } of pairs(events)) {
    if (!is(result, "acquire", "ok")) continue;
    const { locks } = call as Entry<"acquire", "invoke">;
    (result as Entry<"acquire", "ok">).grants.forEach((grant, i) => {
      const lock = locks[i] as HistoryLock;
      holds.set(grant.token, { lock, grant, call, result, lastNs: 0, downgraded: false, ended: null });
    });
  }
  for (const { call, result } of pairs(events)) {
    const hold = "token" in call && call.op !== "write" ? holds.get(call.token) : undefined;
    if (!hold || !["release", "transfer", "downgrade"].includes(call.op)) continue;
    if (call.op === "downgrade" && result.type !== "fail") hold.downgraded = true;
    if (result.type !== "ok") continue;
    hold.lastNs = Math.max(hold.lastNs, call.ns);
    if (call.op !== "downgrade") hold.ended = result;
  }
  for (const event of events) {
    const hold = event.op === "refresh" && event.type === "ok" ? holds.get(event.token) : undefined;
    if (hold) hold.lastNs = Math.max(hold.lastNs, event.ns);
  }
  return [...holds.values()];
}

const pick = <T>(list: readonly T[], random: Random): T | undefined => list[Math.floor(random() * list.length)];

const plant = (events: readonly HistoryEvent[], ...more: HistoryEvent[]): HistoryEvent[] =>
  [...events, ...more].sort((a, b) => a.ns - b.ns);

const replace = (events: readonly HistoryEvent[], old: HistoryEvent, changed: Partial<HistoryEvent>): HistoryEvent[] =>
  events.map((event) => (event === old ? ({ ...event, ...changed } as HistoryEvent) : event));

const stranger = (entry: HistoryEntry, ns: number, id = 1): HistoryEvent => ({ ...entry, process: "stranger", ns, id });

/** A hold of somebody who does not appear otherwise, with the next free token after that of `beside`. */
function intrusion(beside: Known, lock: HistoryLock, calledNs: number, returnedNs: number, seenNs?: number) {
  const token = beside.grant.token + 1;
  const { name } = lock;
  const slots = lock.mode === "semaphore" ? { slots: [77] } : {};
  const events = [
    stranger({ op: "acquire", type: "invoke", locks: [lock] }, calledNs),
    stranger({ op: "acquire", type: "ok", grants: [{ token, ...slots }] }, returnedNs),
  ];
  if (seenNs !== undefined) events.push(stranger({ op: "refresh", type: "ok", name, token }, seenNs, 2));
  return events;
}

/** A hold that is proven for long enough to put something inside. */
const roomy = (hold: Known): boolean => hold.lastNs - hold.result.ns > 50;

function inside(hold: Known, share: number): number {
  return hold.result.ns + Math.floor((hold.lastNs - hold.result.ns) * share);
}

/** Somebody is granted `lock` within a hold of the mode, whoever else holds. */
function granted(mode: HistoryLock["mode"], lock: (held: HistoryLock) => HistoryLock): Fault {
  return (events, random) => {
    const holds = holdsOf(events).filter((hold) => hold.lock.mode === mode && !hold.downgraded && roomy(hold));
    const hold = pick(holds, random);
    return hold ? plant(events, ...intrusion(hold, lock(hold.lock), inside(hold, 0.3), inside(hold, 0.6))) : null;
  };
}

/** A result of the acquires of two processes, the second called after the first returned. */
function twoInOrder(events: readonly HistoryEvent[], random: Random) {
  const acquires = pairs(events).filter(({ result }) => is(result, "acquire", "ok"));
  const first = pick(acquires, random);
  const second = pick(
    acquires.filter(({ call }) => first && call.ns > first.result.ns),
    random,
  );
  return first && second
    ? { first: first.result as Entry<"acquire", "ok">, second: second.result as Entry<"acquire", "ok"> }
    : null;
}

export const faults: Readonly<Record<string, { readonly rule: string; readonly plant: Fault }>> = {
  "a second exclusive grant within an exclusive hold": {
    rule: "grant-inside-hold",
    plant: granted("exclusive", ({ name }) => ({ name, mode: "exclusive" })),
  },
  "a shared grant within an exclusive hold": {
    rule: "grant-inside-hold",
    plant: granted("exclusive", ({ name }) => ({ name, mode: "shared" })),
  },
  "an exclusive grant within a shared hold": {
    rule: "grant-inside-hold",
    plant: granted("shared", ({ name }) => ({ name, mode: "exclusive" })),
  },
  "permits within a shared hold": {
    rule: "grant-inside-hold",
    plant: granted("shared", ({ name }) => ({ name, mode: "semaphore", permits: 1, limit: 9 })),
  },
  "more permits than the limit of the holder": {
    rule: "grant-inside-hold",
    plant: granted("semaphore", ({ name, limit = 1 }) => ({ name, mode: "semaphore", permits: limit, limit: 99 })),
  },
  "more permits than the limit of the candidate": {
    rule: "grant-inside-hold",
    plant: granted("semaphore", ({ name }) => ({ name, mode: "semaphore", permits: 1, limit: 1 })),
  },
  "an exclusive grant after a downgrade, within the rest of the hold": {
    rule: "grant-inside-hold",
    plant: (events, random) => {
      const hold = pick(
        holdsOf(events).filter((known) => known.downgraded && roomy(known)),
        random,
      );
      if (!hold) return null;
      const lock: HistoryLock = { name: hold.lock.name, mode: "exclusive" };
      return plant(events, ...intrusion(hold, lock, inside(hold, 0.8), inside(hold, 0.9)));
    },
  },
  "two who look and both find that they hold": {
    rule: "held-together",
    plant: (events, random) => {
      const hold = pick(
        holdsOf(events).filter((known) => known.lock.mode === "exclusive" && roomy(known)),
        random,
      );
      if (!hold) return null;
      // Its own acquire was called before, so that it might have come first, but for the look.
      const { result, lock } = hold;
      return plant(events, ...intrusion(hold, lock, 1, result.ns + 5, result.ns + 10));
    },
  },
  "a look that succeeds after the lock was granted to the next one": {
    rule: "held-together",
    plant: (events, random) => {
      const holds = holdsOf(events).filter(({ lock }) => lock.mode === "exclusive");
      const lost = pick(
        holds.filter(({ ended }) => ended === null),
        random,
      );
      const next = holds.find(
        (hold) =>
          lost && hold.lock.name === lost.lock.name && hold.call.ns > lost.result.ns && !hold.downgraded && roomy(hold),
      );
      if (!lost || !next) return null;
      const { process } = lost.result;
      const look: HistoryEntry = { op: "refresh", type: "ok", name: lost.lock.name, token: lost.grant.token };
      return plant(events, { ...look, process, id: 9_999, ns: inside(next, 0.5) });
    },
  },
  "a slot that two have": {
    rule: "slot-twice",
    plant: (events, random) => {
      const hold = pick(
        holdsOf(events).filter((known) => known.lock.mode === "semaphore" && roomy(known)),
        random,
      );
      if (!hold) return null;
      const { name } = hold.lock;
      const token = hold.grant.token + 1;
      const lock: HistoryLock = { name, mode: "semaphore", permits: 1, limit: 99 };
      const slots = [hold.grant.slots?.[0] ?? 0];
      return plant(
        events,
        stranger({ op: "acquire", type: "invoke", locks: [lock] }, inside(hold, 0.1)),
        stranger({ op: "acquire", type: "ok", grants: [{ token, slots }] }, inside(hold, 0.2)),
        stranger({ op: "refresh", type: "ok", name, token }, inside(hold, 0.5), 2),
      );
    },
  },
  "a token that is granted twice": {
    rule: "token-twice",
    plant: (events, random) => {
      const two = twoInOrder(events, random);
      if (!two) return null;
      return replace(events, two.second, { grants: [...two.second.grants.slice(1), two.first.grants[0]!] } as never);
    },
  },
  "a smaller token than one that was granted before": {
    rule: "token-order",
    plant: (events, random) => {
      const two = twoInOrder(events, random);
      if (!two) return null;
      const grants = two.second.grants.map((grant, i) => ({ ...grant, token: two.first.grants[0]!.token - 9 + i }));
      return replace(events, two.second, { grants } as never);
    },
  },
  "a grant that only its token shows to be within another": {
    rule: "acquire-while-owned",
    plant: (events, random) => {
      const holds = holdsOf(events).filter(({ lock, downgraded }) => lock.mode === "exclusive" && !downgraded);
      // While the answer to this one is still on its way, another one comes, and goes.
      const hold = pick(
        holds.filter((known) => roomy(known) && known.result.ns - known.call.ns > 50),
        random,
      );
      return hold
        ? plant(events, ...intrusion(hold, hold.lock, hold.call.ns + 5, hold.call.ns + 10, hold.call.ns + 20))
        : null;
    },
  },
  "a release by somebody else": {
    rule: "not-the-owner",
    plant: (events, random) => {
      const hold = pick(holdsOf(events).filter(roomy), random);
      if (!hold) return null;
      const { name } = hold.lock;
      return plant(
        events,
        stranger({ op: "release", type: "invoke", name, token: hold.grant.token }, inside(hold, 0.3)),
        stranger({ op: "release", type: "ok" }, inside(hold, 0.6)),
      );
    },
  },
  "a release of what nobody was granted": {
    rule: "not-the-owner",
    plant: (events) =>
      plant(
        events,
        stranger({ op: "release", type: "invoke", name: "a", token: 7 }, 50),
        stranger({ op: "release", type: "ok" }, 60),
      ),
  },
  "a lock that is released twice": {
    rule: "after-the-end",
    plant: (events, random) => {
      const hold = pick(
        holdsOf(events).filter(({ ended }) => ended !== null),
        random,
      );
      if (!hold?.ended) return null;
      const { ended, lock, grant, result } = hold;
      const again = { process: result.process, id: 9_999 };
      return plant(
        events,
        { ...again, op: "release", type: "invoke", name: lock.name, token: grant.token, ns: ended.ns + 1 },
        { ...again, op: "release", type: "ok", ns: ended.ns + 2 },
      );
    },
  },
  "a grant with a greater token and a smaller timestamp": {
    rule: "grant-order",
    plant: (events, random) => {
      const two = twoInOrder(events, random);
      const before = two?.first.grants[0]?.timestamp ?? 0;
      if (!two || before < 10) return null;
      return replace(events, two.second, {
        grants: two.second.grants.map((grant) => ({ ...grant, timestamp: before - 3 })),
      } as never);
    },
  },
  "ranges that have a timestamp in common": {
    rule: "timestamp-twice",
    plant: (events, random) => {
      const ranges = events.filter((event) => is(event, "range", "ok")) as Entry<"range", "ok">[];
      const [range, other] = [pick(ranges, random), pick(ranges, random)];
      if (!range || !other || range === other) return null;
      return replace(events, range, { first: other.last, last: other.last } as never);
    },
  },
  "a range within those that were given before": {
    rule: "timestamp-order",
    plant: (events, random) => {
      const range = pick(
        events.filter((event) => is(event, "range", "ok")),
        random,
      ) as Entry<"range", "ok"> | undefined;
      if (!range) return null;
      const at = events.at(-1)!.ns;
      const { first, last } = { first: range.first - 4, last: range.first - 4 };
      return plant(
        events,
        stranger({ op: "range", type: "invoke", count: 1 }, at + 10),
        stranger({ op: "range", type: "ok", first, last }, at + 20),
      );
    },
  },
  "a clock of a process that goes back": {
    rule: "timestamp-backwards",
    plant: (events, random) => {
      const tick = pick(
        events.filter((event) => is(event, "tick", "ok")),
        random,
      ) as Entry<"tick", "ok"> | undefined;
      return tick ? plant(events, { ...tick, id: 9_999, ns: tick.ns + 1 }) : null;
    },
  },
  "a stale write that is accepted": {
    rule: "stale-write",
    plant: (events, random) => {
      const write = pick(
        pairs(events).filter(({ result }) => is(result, "write", "ok")),
        random,
      );
      if (!write) return null;
      const { resource, token } = write.call as Entry<"write", "invoke">;
      return plant(
        events,
        stranger({ op: "write", type: "invoke", resource, token: token - 1 }, write.result.ns + 1),
        stranger({ op: "write", type: "ok" }, write.result.ns + 2),
      );
    },
  },
  "an older leader after a newer one": {
    rule: "leader-order",
    plant: (events, random) => {
      const sight = pick(
        events.filter((event) => is(event, "observe", "ok")),
        random,
      ) as Entry<"observe", "ok"> | undefined;
      return sight ? plant(events, { ...sight, token: sight.token - 1, ns: sight.ns + 1 }) : null;
    },
  },
};

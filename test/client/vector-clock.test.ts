/** Vector clocks: what they say against what can be reached in the graph of messages, and their text on the wire. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { LamportClock } from "../../src/client/lamport.js";
import {
  compareVectors,
  decodeVector,
  encodeVector,
  mergeVectors,
  VECTOR_HEADER,
  type Vector,
  VectorClock,
} from "../../src/client/vector-clock.js";
import { thrown } from "./support.js";

const seed = Number(process.env.LEASEHOLD_SEED ?? Date.now() % 2 ** 31);
const check = (property: fc.IProperty<unknown[]> | fc.IRawProperty<unknown>, numRuns = 500) =>
  fc.assert(property as fc.IRawProperty<unknown>, { seed, numRuns });

const ids = ["a", "b", "c", "d"];
/** Few ids and low counters, so that all four orders come up often. */
const small = fc
  .dictionary(fc.constantFrom(...ids), fc.integer({ min: 0, max: 3 }), { noNullPrototype: true })
  .map((vector): Vector => vector);
const id = fc
  .string({ unit: "grapheme", minLength: 1, maxLength: 20 })
  .filter((text) => !/[\p{Cc}\p{Surrogate}]/u.test(text) && Buffer.byteLength(text) <= 128);
const large = fc
  .uniqueArray(fc.tuple(id, fc.integer({ min: 1, max: Number.MAX_SAFE_INTEGER })), {
    selector: ([name]) => name,
    maxLength: 20,
  })
  .map((entries): Vector => Object.fromEntries(entries));

const opposite = { before: "after", after: "before", equal: "equal", concurrent: "concurrent" } as const;
const below = (a: Vector, b: Vector) => ["before", "equal"].includes(compareVectors(a, b));

describe(`vectors (seed ${seed})`, () => {
  it("compare as is said", () => {
    expect(compareVectors({}, {})).toBe("equal");
    expect(compareVectors({}, { a: 0 })).toBe("equal");
    expect(compareVectors({ a: 1 }, { a: 2, b: 1 })).toBe("before");
    expect(compareVectors({ a: 2, b: 1 }, { a: 1 })).toBe("after");
    expect(compareVectors({ a: 1 }, { b: 1 })).toBe("concurrent");
    expect(compareVectors({ a: 10 }, { a: 9 })).toBe("after");
  });

  it("are partially ordered: the same, turned round, and passed on", () => {
    check(
      fc.property(small, small, small, (a, b, c) => {
        expect(compareVectors(a, a)).toBe("equal");
        expect(compareVectors(b, a)).toBe(opposite[compareVectors(a, b)]);
        if (below(a, b) && below(b, c)) expect(below(a, c)).toBe(true);
        if (compareVectors(a, b) === "equal") expect(encodeVector(a)).toBe(encodeVector(b));
      }),
      2_000,
    );
  });

  it("merge to the least that is above both", () => {
    check(
      fc.property(small, small, small, (a, b, c) => {
        const both = mergeVectors(a, b);
        expect(below(a, both) && below(b, both)).toBe(true);
        if (below(a, c) && below(b, c)) expect(below(both, c)).toBe(true);
        expect(compareVectors(both, mergeVectors(b, a))).toBe("equal");
        expect(compareVectors(mergeVectors(a, a), a)).toBe("equal");
      }),
      2_000,
    );
  });

  it("have one text each, which gives them back", () => {
    expect(encodeVector({ b: 7, a: 3, c: 0 })).toBe("a=3,b=7");
    expect(encodeVector({ "eu west/1=a,b%": 1, __proto__: null } as unknown as Vector)).toBe(
      "eu%20west%2F1%3Da%2Cb%25=1",
    );
    expect(encodeVector({})).toBe("");
    check(
      fc.property(large, (vector) => {
        const text = encodeVector(vector);
        expect(text).toMatch(/^[\x21-\x7e]*$/); // what every header can carry
        const back = decodeVector(text);
        expect(Object.entries(back).sort()).toEqual(Object.entries(vector).sort());
        expect(compareVectors(back, vector)).toBe("equal");
      }),
    );
  });

  it("may have any process in it, also one named __proto__", () => {
    const clock = new VectorClock("__proto__");
    clock.tick();
    expect(encodeVector(clock.tick())).toBe("__proto__=2");
    expect(compareVectors(decodeVector("__proto__=2"), {})).toBe("after");
    expect(Object.keys(clock.observe(decodeVector("__proto__=9,constructor=1")))).toEqual(["__proto__", "constructor"]);
    expect(encodeVector(clock.current())).toBe("__proto__=10,constructor=1");
    expect(compareVectors({}, decodeVector("toString=1"))).toBe("before");
  });

  it.each([
    ..."a|a=|=1|a=0|a=01|a=-1|a=1.5|a=1e3|a=9007199254740992|a=99999999999999999|a=1,|,a=1|a=1,,b=1".split("|"),
    ..."b=1,a=1|a=1,a=2|a=1,a=1|a=1, b=2|a=1;b=2|%61=1|a%2f=1|%=1|%ff=1|a b=1|ä=1|%00=1|%ED%A0%80=1".split("|"),
    `${"a".repeat(129)}=1`,
    `a=1,${"b".repeat(9_000)}=1`,
  ])("refuse the text %j", (text) => {
    expect(thrown(() => decodeVector(text)).code).toBe("INVALID");
    const clock = new VectorClock("me");
    expect(thrown(() => clock.extract({ [VECTOR_HEADER]: text })).code).toBe("INVALID");
    expect(clock.current()).toEqual({});
  });

  it("refuse garbage, and nothing else is thrown whatever the text is", () => {
    check(
      fc.property(fc.oneof(fc.string(), fc.stringMatching(/^[ab%=,0-9]{0,12}$/)), (text) => {
        try {
          expect(encodeVector(decodeVector(text))).toBe(text);
        } catch (error) {
          expect(error).toMatchObject({ code: "INVALID" });
        }
      }),
      2_000,
    );
  });

  it.each([null, undefined, 5, "a=1", [1], { a: -1 }, { a: 1.5 }, { a: 2 ** 53 }, { a: "1" }, { a: 1n }, { "": 1 }])(
    "refuse %s in place of counters",
    (bad) => {
      const vector = bad as unknown as Vector;
      const uses = [
        () => compareVectors(vector, {}),
        () => compareVectors({ b: 1 }, vector),
        () => mergeVectors({}, vector),
        () => encodeVector(vector),
        () => new VectorClock("me").observe(vector),
      ];
      for (const use of uses) expect(thrown(use).code).toBe("INVALID");
    },
  );
});

describe("a vector clock", () => {
  it("counts its own events and takes over what others know", () => {
    const [a, b] = [new VectorClock("a"), new VectorClock("b")];
    expect(a.current()).toEqual({});
    expect(a.tick()).toEqual({ a: 1 });
    expect(b.observe(a.tick())).toEqual({ a: 2, b: 1 });
    expect(a.observe(b.current())).toEqual({ a: 3, b: 1 });
  });

  it("gives vectors that do not change", () => {
    const clock = new VectorClock("a");
    const before = clock.tick();
    clock.tick();
    expect(before).toEqual({ a: 1 });
    expect(() => Object.assign(before, { a: 5 })).toThrow(TypeError);
    const from = { a: 7 };
    const resumed = new VectorClock("a", { from });
    from.a = 0;
    expect(resumed.tick()).toEqual({ a: 8 });
  });

  it("is bounded, keeps a place for itself, and takes nothing over when it is full", () => {
    const clock = new VectorClock("me", { entriesMax: 3 });
    clock.observe({ a: 1, b: 1 });
    const before = clock.current();
    expect(thrown(() => clock.observe({ a: 5, c: 1 }))).toMatchObject({ code: "LIMIT", retryable: false });
    expect(clock.current()).toBe(before);
    expect(clock.observe({ a: 5 })).toEqual({ a: 5, b: 1, me: 2 });
    const three = { a: 1, b: 1, c: 1 };
    expect(thrown(() => new VectorClock("me", { entriesMax: 3, from: three })).code).toBe("LIMIT");
    const many = Object.fromEntries(Array.from({ length: 64 }, (_, i) => [`p${i}`, 1]));
    expect(thrown(() => new VectorClock("me").observe(many)).code).toBe("LIMIT");
    expect(new VectorClock("p0").observe(many).p0).toBe(2);
    for (const entriesMax of [0, -1, 1.5, 1_025, "5", Number.NaN]) {
      expect(thrown(() => new VectorClock("me", { entriesMax: entriesMax as number })).code).toBe("INVALID");
    }
  });

  it("does not tick for a header that would be too long", () => {
    const long = Object.fromEntries(Array.from({ length: 63 }, (_, i) => [`${i}`.padStart(128, "p"), 1]));
    const clock = new VectorClock("me", { from: long });
    const headers = new Headers();
    expect(thrown(() => clock.inject(headers)).code).toBe("LIMIT");
    expect([...headers]).toEqual([]);
    expect(clock.current().me).toBeUndefined();
  });

  it("ends at 2^53 - 1, and does not go round", () => {
    const clock = new VectorClock("a", { from: { a: Number.MAX_SAFE_INTEGER - 1 } });
    expect(clock.tick()).toEqual({ a: Number.MAX_SAFE_INTEGER });
    expect(thrown(() => clock.tick()).code).toBe("INVALID");
    expect(thrown(() => clock.inject({})).code).toBe("INVALID");
    const other = new VectorClock("b");
    expect(thrown(() => other.observe({ b: Number.MAX_SAFE_INTEGER, c: 1 })).code).toBe("INVALID");
    expect(other.current()).toEqual({});
    expect(other.observe({ c: Number.MAX_SAFE_INTEGER }).c).toBe(Number.MAX_SAFE_INTEGER);
  });

  it.each(["", "a\0b", "a\nb", "\ud800", "x".repeat(129), "ä".repeat(65), 7, null, undefined])(
    "refuses the id %j",
    (bad) => {
      expect(thrown(() => new VectorClock(bad as string)).code).toBe("INVALID");
    },
  );

  it("travels in headers, and refuses an empty one", () => {
    const [a, b] = [new VectorClock("a"), new VectorClock("b")];
    const headers = a.inject({ accept: "*/*" });
    expect(headers).toEqual({ accept: "*/*", [VECTOR_HEADER]: "a=1" });
    expect(b.extract(headers)).toEqual({ a: 1, b: 1 });
    expect(b.extract({})).toBeUndefined();
    expect(thrown(() => b.extract({ [VECTOR_HEADER]: "" })).code).toBe("INVALID");
    expect(b.current()).toEqual({ a: 1, b: 1 });
  });
});

/** What a process does next: something of its own, or the receipt of one of the messages that are on their way. */
interface Step {
  readonly process: number;
  readonly receives: number | null;
}
const steps = fc.array(
  fc.record<Step>({
    process: fc.nat({ max: 3 }),
    receives: fc.option(fc.nat({ max: 1_000 }), { nil: null }),
  }),
  { minLength: 1, maxLength: 40 },
);

interface Happening {
  readonly vector: Vector;
  readonly lamport: number;
  /** The events before it by one step: the one before in its process, and the sending of what it received. */
  readonly causes: readonly number[];
}

/** Runs the exchange with real clocks and real headers; a message may arrive any number of times, also at its sender. */
function exchange(plan: readonly Step[]): Happening[] {
  const never = () => Promise.reject(new Error("no server"));
  const processes = ids.map((name) => ({ vector: new VectorClock(name), lamport: new LamportClock(never) }));
  const messages: { sending: number; headers: { [name: string]: string } }[] = [];
  const happened: Happening[] = [];
  const latest = new Map<number, number>();
  for (const { process, receives } of plan) {
    const { vector, lamport } = processes[process] as (typeof processes)[number];
    const causes = latest.has(process) ? [latest.get(process) as number] : [];
    const message = receives === null ? undefined : messages[receives % Math.max(1, messages.length)];
    if (message) {
      vector.extract(message.headers);
      lamport.extract(message.headers);
      causes.push(message.sending);
    } else {
      messages.push({ sending: happened.length, headers: lamport.inject(vector.inject({})) });
    }
    latest.set(process, happened.length);
    happened.push({ vector: vector.current(), lamport: lamport.now(), causes });
  }
  return happened;
}

/** For each event, those that it can be reached from along causes. */
function ancestors(happened: readonly Happening[]): Set<number>[] {
  const all: Set<number>[] = [];
  for (const { causes } of happened) all.push(new Set(causes.flatMap((cause) => [cause, ...(all[cause] ?? [])])));
  return all;
}

describe(`an exchange of messages (seed ${seed})`, () => {
  it("is before by the vectors exactly if it is before in the graph, and Lamport timestamps never contradict it", () => {
    const orders = { before: 0, after: 0, equal: 0, concurrent: 0 };
    check(
      fc.property(steps, (plan) => {
        const happened = exchange(plan);
        const before = ancestors(happened);
        for (const [i, a] of happened.entries()) {
          for (const [j, b] of happened.entries()) {
            const [forth, back] = [before[j]?.has(i), before[i]?.has(j)];
            const truth = i === j ? "equal" : forth ? "before" : back ? "after" : "concurrent";
            expect(compareVectors(a.vector, b.vector)).toBe(truth);
            if (truth === "before") expect(a.lamport).toBeLessThan(b.lamport);
            orders[truth]++;
          }
        }
      }),
      200,
    );
    // A test without concurrent events, or with none but those, would show nothing.
    for (const count of Object.values(orders)) expect(count).toBeGreaterThan(100);
  });
});

/** The stamped producer without a broker: sequences, confirms that do not come, locks that are lost. */
import { FenceError } from "@leasehold/fence";
import { type ProducerOptions, readStamp, type Stamp } from "@leasehold/fence/rabbitmq";
import { describe, expect, test } from "vitest";
import { StampedProducer, type Transport } from "../../src/fence/messages/publisher.js";
import { checkHeaders, stampHeaders } from "../../src/fence/messages/stamp.js";
import { exclusive, permits, shared } from "./locks.js";
import { ManualTiming, settled } from "./messages-timing.js";

type Answer = "confirm" | "lose" | Error;

/** A broker that confirms what it is told to. "lose": it never answers. */
class Broker implements Transport<string> {
  /** What was sent, as "key token.sequence text". */
  readonly sent: string[] = [];
  readonly stamps: Stamp[] = [];
  /** The answers to come, and then the last of them for ever. */
  answers: Answer[] = ["confirm"];

  check(message: string): void {
    if (typeof message !== "string") throw new FenceError("INVALID", "text, please");
  }

  send(stamp: Stamp, message: string | undefined): Promise<void> {
    const [answer] = this.answers.length > 1 ? this.answers.splice(0, 1) : this.answers;
    if (FenceError.is(answer, "UNREACHABLE")) return Promise.reject(answer);
    this.stamps.push(stamp);
    this.sent.push(`${stamp.key} ${stamp.token}.${stamp.sequence} ${message ?? "-"}`);
    if (answer instanceof Error) return Promise.reject(answer);
    return answer === "lose" ? new Promise(() => {}) : Promise.resolve();
  }
}

function bench(options: ProducerOptions = {}) {
  const broker = new Broker();
  const timing = new ManualTiming();
  const producer = new StampedProducer(broker, { retryMs: 100, confirmMs: 1_000, ...options }, [], timing);
  return { broker, timing, producer };
}

const unreachable = new FenceError("UNREACHABLE", "no channel");
const refused = (code: string) => expect.objectContaining({ code });

describe("stamps", () => {
  test("a marker comes first, and then 1, 2, 3… for each key and token", async () => {
    const { broker, producer } = bench();
    const first = await producer.open(exclusive("k", 5));
    expect(await first.publish("a")).toEqual({ key: "k", token: 5, sequence: 1, shared: false, timestamp: undefined });
    await first.publish("b");
    await (await producer.open(exclusive("other", 6))).publish("c");
    await (await producer.open(exclusive("k", 7))).publish("d");
    expect(broker.sent).toEqual(["k 5.0 -", "k 5.1 a", "k 5.2 b", "other 6.0 -", "other 6.1 c", "k 7.0 -", "k 7.1 d"]);
  });

  test("opened again under the same token it goes on, without another marker", async () => {
    const { broker, producer } = bench();
    await (await producer.open({ name: "k", token: 5 })).publish("a");
    await (await producer.open({ name: "k", token: 5 })).publish("b");
    expect(broker.sent).toEqual(["k 5.0 -", "k 5.1 a", "k 5.2 b"]);
  });

  test("a stale holder in the same process does not displace the sequence of the holder", async () => {
    const { broker, producer } = bench();
    await (await producer.open(exclusive("k", 34))).publish("a");
    await (await producer.open(exclusive("k", 33))).publish("late");
    await (await producer.open(exclusive("k", 34))).publish("b");
    expect(broker.sent.at(-1)).toBe("k 34.2 b");
  });

  test("a process that goes on under a token says after which sequence", async () => {
    const { broker, producer } = bench();
    const publisher = await producer.open({ name: "k", token: 5 }, { after: 7 });
    await publisher.publish("a");
    expect(broker.sent.at(-1)).toBe("k 5.8 a");
    await expect(producer.open({ name: "k", token: 5 }, { after: -1 })).rejects.toEqual(refused("INVALID"));
  });

  test("raise publishes the marker, of all slots of a lock; open then does not", async () => {
    const { broker, producer } = bench();
    await producer.raise(permits("k", 5, 0, 3));
    expect(broker.sent).toEqual(["k#0 5.0 -", "k#3 5.0 -"]);
    const one = exclusive("one", 6);
    await producer.raise(one);
    await producer.open(one);
    expect(broker.sent.slice(2)).toEqual(["one 6.0 -"]);
  });

  test("a shared hold's messages say so", async () => {
    const { broker, producer } = bench();
    await (await producer.open(shared("k", 5))).publish("a");
    expect(broker.stamps.map((stamp) => stamp.shared)).toEqual([true, true]);
  });

  test("the clock ticks once for each message, also if it is sent twice", async () => {
    let now = 40;
    const { broker, timing, producer } = bench({ clock: { tick: () => ++now } });
    const publisher = await producer.open(exclusive("k", 5));
    broker.answers = [new Error("nack"), "confirm"];
    const published = publisher.publish("a");
    await timing.advance(100);
    expect(await published).toMatchObject({ timestamp: 42 });
    expect(broker.stamps.map(({ timestamp }) => timestamp)).toEqual([41, 42, 42]);
  });

  test("headers come back as they were written, as text, bytes, and in a Map of bytes", () => {
    const stamps: Stamp[] = [
      { key: "ä/π/日本/🔒", token: Number.MAX_SAFE_INTEGER, sequence: 7, shared: false, timestamp: undefined },
      { key: "k#3", token: 0, sequence: 0, shared: true, timestamp: 9_007_199_254_740_990 },
    ];
    for (const stamp of stamps) {
      const headers = stampHeaders(stamp);
      const bytes = Object.entries(headers).map(([name, value]) => [name, Buffer.from(value)] as const);
      expect(readStamp(headers)).toEqual(stamp);
      expect(readStamp(Object.fromEntries(bytes))).toEqual(stamp);
      expect(readStamp(new Map(bytes.map(([name, value]) => [Buffer.from(name), value])))).toEqual(stamp);
    }
    expect(() => checkHeaders({ "leasehold-token": "7" })).toThrow(refused("INVALID"));
  });
});

describe("confirms", () => {
  test("a message whose confirm is lost is sent again with its sequence, and is one message", async () => {
    const { broker, timing, producer } = bench();
    const publisher = await producer.open(exclusive("k", 5));
    broker.answers = ["lose", "confirm"];
    const published = publisher.publish("a");
    await timing.advance(999);
    expect(broker.sent).toEqual(["k 5.0 -", "k 5.1 a"]);
    await timing.advance(1 + 100);
    expect((await published).sequence).toBe(1);
    await publisher.publish("b");
    expect(broker.sent).toEqual(["k 5.0 -", "k 5.1 a", "k 5.1 a", "k 5.2 b"]);
  });

  test("after the last attempt nothing is published until flush has sent it again, with its sequence", async () => {
    const { broker, timing, producer } = bench({ attemptsMax: 2 });
    const publisher = await producer.open(exclusive("k", 5));
    const cause = new Error("channel closed");
    broker.answers = [cause];
    const failed = expect(publisher.publish("a")).rejects.toMatchObject({ code: "OUTCOME_UNKNOWN", token: 5, cause });
    await timing.advance(100);
    await failed;
    await expect(publisher.publish("b")).rejects.toEqual(refused("OUTCOME_UNKNOWN"));
    const again = expect(publisher.flush()).rejects.toEqual(refused("OUTCOME_UNKNOWN"));
    await settled();
    await timing.advance(100);
    await again;
    broker.answers = ["confirm"];
    await publisher.flush();
    await publisher.publish("b");
    expect(broker.sent).toEqual(["k 5.0 -", ...Array(5).fill("k 5.1 a"), "k 5.2 b"]);
  });

  test("what certainly was not sent is UNREACHABLE, and its sequence is not given to another message", async () => {
    const { broker, timing, producer } = bench({ attemptsMax: 2 });
    const publisher = await producer.open(exclusive("k", 5));
    broker.answers = [unreachable];
    const failed = expect(publisher.publish("a")).rejects.toEqual(refused("UNREACHABLE"));
    await timing.advance(100);
    await failed;
    broker.answers = ["confirm"];
    await expect(publisher.publish("b")).rejects.toEqual(refused("OUTCOME_UNKNOWN"));
    await publisher.flush();
    expect(broker.sent.at(-1)).toBe("k 5.1 a");
  });

  test("a message that nobody takes is not tried again by itself", async () => {
    const { broker, producer } = bench();
    const publisher = await producer.open(exclusive("k", 5));
    broker.answers = [new FenceError("NOT_FOUND", "no queue"), "confirm"];
    await expect(publisher.publish("a")).rejects.toEqual(refused("NOT_FOUND"));
    await publisher.flush();
    expect(broker.sent).toEqual(["k 5.0 -", "k 5.1 a", "k 5.1 a"]);
  });

  test("flush waits for what is on its way, and two at once do no harm", async () => {
    const { broker, timing, producer } = bench({ attemptsMax: 1 });
    const publisher = await producer.open(exclusive("k", 5));
    broker.answers = ["lose", "confirm"];
    const published = publisher.publish("a").catch((error: FenceError) => error.code);
    let flushed = 0;
    for (const flush of [publisher.flush(), publisher.flush()]) void flush.then(() => ++flushed);
    await settled();
    expect(flushed).toBe(0);
    await timing.advance(1_000);
    expect(await published).toBe("OUTCOME_UNKNOWN");
    expect(flushed).toBe(2);
    expect(broker.sent.slice(1)).toEqual(["k 5.1 a", "k 5.1 a"]);
  });

  test("too many unconfirmed messages are refused, and take no sequence", async () => {
    const { broker, timing, producer } = bench({ unconfirmedMax: 2, attemptsMax: 2 });
    const publisher = await producer.open(exclusive("k", 5));
    broker.answers = ["lose", "lose", "confirm"];
    const published = [publisher.publish("a"), publisher.publish("b")];
    await expect(publisher.publish("c")).rejects.toEqual(refused("LIMIT"));
    await timing.advance(1_100);
    await Promise.all(published);
    expect((await publisher.publish("c")).sequence).toBe(3);
  });

  test("a bad message is refused before it has a sequence", async () => {
    const { producer } = bench();
    const publisher = await producer.open(exclusive("k", 5));
    await expect(publisher.publish(7 as unknown as string)).rejects.toEqual(refused("INVALID"));
    expect((await publisher.publish("a")).sequence).toBe(1);
  });
});

describe("a lock that is lost", () => {
  test("nothing is published", async () => {
    const { broker, producer } = bench();
    const lock = exclusive("k", 5);
    const publisher = await producer.open(lock);
    lock.lose();
    await expect(publisher.publish("a")).rejects.toEqual(refused("LOST"));
    await expect(producer.open(lock)).rejects.toEqual(refused("LOST"));
    await expect(producer.raise(lock)).rejects.toEqual(refused("LOST"));
    expect(broker.sent).toEqual(["k 5.0 -"]);
  });

  test("nothing is sent again, at once", async () => {
    const { broker, producer } = bench({ retryMs: 60_000 });
    const lock = exclusive("k", 5);
    const publisher = await producer.open(lock);
    broker.answers = [new Error("nack"), "confirm"];
    const published = expect(publisher.publish("a")).rejects.toEqual(refused("OUTCOME_UNKNOWN"));
    await settled();
    lock.lose();
    await published;
    await expect(publisher.flush()).rejects.toEqual(refused("OUTCOME_UNKNOWN"));
    expect(broker.sent).toEqual(["k 5.0 -", "k 5.1 a"]);
  });

  test("many messages that are sent again at a time are woken at once, without a warning of Node's", async () => {
    const warnings: string[] = [];
    const warn = ({ name }: Error) => warnings.push(name);
    process.on("warning", warn);
    const { broker, producer } = bench({ retryMs: 60_000 });
    const lock = exclusive("k", 5);
    const publisher = await producer.open(lock);
    broker.answers = [unreachable];
    const all = Array.from({ length: 20 }, () => publisher.publish("a").catch((error: { code: string }) => error.code));
    await settled();
    lock.lose();
    expect(await Promise.all(all)).toEqual(Array(20).fill("LOST"));
    await settled();
    process.off("warning", warn);
    expect(warnings).toEqual([]);
  });

  test("what was never sent is simply LOST", async () => {
    const { broker, producer } = bench({ retryMs: 60_000 });
    const lock = exclusive("k", 5);
    const publisher = await producer.open(lock);
    broker.answers = [unreachable];
    const published = expect(publisher.publish("a")).rejects.toEqual(refused("LOST"));
    await settled();
    lock.lose();
    await published;
  });
});

describe("under", () => {
  test("flushes at the end, and returns what the function returned", async () => {
    const { broker, timing, producer } = bench();
    broker.answers = ["confirm", "lose", "confirm"];
    let ended = false;
    const under = producer.under(exclusive("k", 5), (publisher) => {
      void publisher.publish("a");
      return "result";
    });
    void under.then(() => {
      ended = true;
    });
    await settled();
    expect(ended).toBe(false);
    await timing.advance(1_100);
    expect(await under).toBe("result");
    expect(broker.sent).toEqual(["k 5.0 -", "k 5.1 a", "k 5.1 a"]);
  });

  test("flushes also when the function throws, and rejects with that", async () => {
    const { broker, timing, producer } = bench();
    broker.answers = ["confirm", "lose", "confirm"];
    const error = new Error("mine");
    const under = producer.under(exclusive("k", 5), (publisher) => {
      void publisher.publish("a");
      throw error;
    });
    let ended = false;
    const rejected = expect(under).rejects.toBe(error);
    under.catch(() => {
      ended = true;
    });
    await settled();
    expect(ended).toBe(false);
    await timing.advance(1_100);
    await rejected;
    expect(broker.sent).toEqual(["k 5.0 -", "k 5.1 a", "k 5.1 a"]);
  });

  test("rejects with LOST when the lock was lost meanwhile", async () => {
    const { producer } = bench();
    const lock = exclusive("k", 5);
    const under = producer.under(lock, async (publisher) => {
      await publisher.publish("a");
      lock.lose();
    });
    await expect(under).rejects.toEqual(refused("LOST"));
  });
});

test("locks that are over are forgotten when there are too many; if none is, that is LIMIT", async () => {
  const { producer } = bench();
  const first = exclusive("lock 0", 1);
  await producer.open(first);
  for (let i = 1; i < 10_000; i++) await producer.open({ name: `lock ${i}`, token: i + 1 });
  await expect(producer.open(exclusive("one more", 20_000))).rejects.toEqual(refused("LIMIT"));
  first.lose();
  await producer.open(exclusive("one more", 20_000));
});

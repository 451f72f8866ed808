/** Standing for election, leading, losing, and standing again. */
import { describe, expect, it } from "vitest";
import { type Leadership, type LeadOptions, LeaseholdError } from "../../src/client/index.js";
import { v1 } from "../../src/client/wire/index.js";
import { type Setup, setup, thrown, type WireCommand, watch } from "./support.js";

const acquires = (s: Setup): WireCommand[] =>
  s.server.connections.flatMap((connection) => connection.commands).filter((command) => command.acquire);

/** The server ends a hold as an administrator would, at once. */
function takeAway(s: Setup, token: number): void {
  s.server.connection.push({ holdEnds: [{ token, reason: v1.EndReason.END_REASON_FORCED }] });
}

/** A lead whose terms end when the test says so. */
function leading(s: Setup, options: LeadOptions = {}) {
  const terms: { readonly me: Leadership; readonly end: (error?: unknown) => void }[] = [];
  const over = watch(
    s.client.lead("e", options, (me) => {
      return new Promise<void>((resolve, reject) => {
        terms.push({ me, end: (error?: unknown) => (error === undefined ? resolve() : reject(error)) });
      });
    }),
  );
  return { terms, over };
}

describe("campaign", () => {
  it("stands for as long as it takes, with its value, and resigns", async () => {
    const s = setup();
    s.server.answers.acquire = () => null;
    const won = watch(s.client.campaign("e", { value: "here", ttl: "5s" }));
    await s.time.advance(100_000);
    expect(won.settled).toBe(false);
    const [command] = acquires(s);
    expect(command?.acquire).toMatchObject({ name: "e", waitMs: 86_400_000, metadata: Buffer.from("here") });
    s.server.connection.answer(command?.seq ?? 0, s.server.grant());
    await s.time.settle();
    const me = won.value as Leadership;
    expect(me).toMatchObject({ name: "e", token: 1, grant: { token: 1 }, state: { is: "held" } });
    me.assertHeld();
    const resigned = watch(me.resign());
    await s.time.settle();
    expect(resigned.value).toBe(true);
    expect(me.state).toEqual({ is: "released" });
    expect(thrown(() => me.token).code).toBe("LOST");
  });

  it("stands again when the server's longest wait is over, but not when its own is", async () => {
    const s = setup();
    const busy = { acquire: { busy: { timedOut: true, waiters: 3, holders: [{ owner: "other" }] } } };
    let asked = 0;
    s.server.answers.acquire = () => (++asked < 3 ? busy : s.server.grant());
    const won = watch(s.client.campaign("e"));
    await s.time.settle();
    expect(won.value?.token).toBe(1);
    expect(asked).toBe(3);
    asked = 0;
    const lost = watch(s.client.campaign("e", { wait: "1s" }));
    await s.time.settle();
    expect(lost.error).toMatchObject({ code: "BUSY" });
    expect(asked).toBe(1);
  });

  it("ends by the signal, and the server is told", async () => {
    const s = setup();
    s.server.answers.acquire = () => null;
    const stop = new AbortController();
    const won = watch(s.client.campaign("e", { signal: stop.signal }));
    await s.time.settle();
    stop.abort();
    await s.time.settle();
    expect(won.error).toBe(stop.signal.reason);
    expect(s.server.connection.commands.at(-1)).toMatchObject({ cancelAcquire: {} });
  });

  it("proclaims a new value", async () => {
    const s = setup();
    s.server.answers.setMetadata = () => ({ setMetadata: {} });
    const standing = s.client.campaign("e");
    await s.time.settle();
    const me = await standing;
    const done = watch(me.proclaim("there"));
    await s.time.settle();
    expect(done.settled).toBe(true);
    expect(s.server.connection.commands.at(-1)).toMatchObject({
      setMetadata: { name: "e", token: 1, metadata: Buffer.from("there") },
    });
  });

  it("tells of a loss as a lock does", async () => {
    const s = setup();
    const standing = s.client.campaign("e");
    await s.time.settle();
    const me = await standing;
    const reasons: string[] = [];
    me.on("lost", (reason) => void reasons.push(reason));
    const { signal } = me;
    takeAway(s, 1);
    await s.time.settle();
    expect(reasons).toEqual(["forced"]);
    expect(signal.reason).toMatchObject({ code: "LOST", lost: "forced" });
    expect(me.state).toEqual({ is: "lost", reason: "forced" });
  });

  it("refuses what an election decides by itself", async () => {
    const { client } = setup();
    for (const wrong of [{ mode: "shared" }, { permits: { of: 2 } }, { metadata: "x" }, { valeu: "x" }, { value: 1 }]) {
      await expect(client.campaign("e", wrong as object)).rejects.toMatchObject({ code: "INVALID" });
      await expect(client.lead("e", wrong as object, () => {})).rejects.toMatchObject({ code: "INVALID" });
    }
    await expect(client.campaign("")).rejects.toMatchObject({ code: "INVALID" });
    await expect(client.lead("e", undefined as unknown as () => void)).rejects.toMatchObject({ code: "INVALID" });
  });
});

describe("lead", () => {
  it("ends with its callback, and resigns", async () => {
    const s = setup();
    const { terms, over } = leading(s, { value: "v" });
    await s.time.settle();
    expect(acquires(s)[0]?.acquire).toMatchObject({ name: "e", metadata: Buffer.from("v"), waitMs: 86_400_000 });
    expect(terms[0]?.me.token).toBe(1);
    terms[0]?.end();
    await s.time.settle();
    expect(over).toEqual({ settled: true, value: undefined });
    expect(terms[0]?.me.state.is).toBe("released");
    expect(s.server.connection.commands.some((command) => command.release?.token === 1)).toBe(true);
  });

  it("rejects with the callback's own error, and resigns", async () => {
    const s = setup();
    const { terms, over } = leading(s);
    await s.time.settle();
    const error = new LeaseholdError("LOST", "some other lock");
    terms[0]?.end(error);
    await s.time.settle();
    expect(over.error).toBe(error);
    expect(acquires(s)).toHaveLength(1);
    expect(s.server.connection.commands.some((command) => command.release?.token === 1)).toBe(true);
  });

  it("stands again after a loss, once the callback has settled, however it did", async () => {
    const s = setup();
    const { terms, over } = leading(s);
    await s.time.settle();
    for (const [i, error] of [undefined, new Error("aborted"), undefined].entries()) {
      const term = terms[i] as (typeof terms)[number];
      const { signal } = term.me;
      takeAway(s, i + 1);
      await s.time.settle();
      expect(signal.aborted).toBe(true);
      expect(terms).toHaveLength(i + 1);
      term.end(error);
      await s.time.settle();
      expect(terms).toHaveLength(i + 2);
      expect(terms[i + 1]?.me.token).toBe(i + 2);
      expect(terms[i + 1]?.me.signal.aborted).toBe(false);
    }
    expect(over.settled).toBe(false);
  });

  it("stands again after its lease has run out, and waits for a server to come back", async () => {
    const s = setup();
    const { terms, over } = leading(s);
    await s.time.settle();
    s.server.unreachable = "down";
    s.server.connection.break();
    await s.time.advance(20_000);
    expect(terms[0]?.me.state).toEqual({ is: "lost", reason: "expired" });
    terms[0]?.end();
    await s.time.advance(100_000);
    expect(terms).toHaveLength(1);
    expect(over.settled).toBe(false);
    s.server.unreachable = null;
    s.server.sessionId = "session-2";
    await s.time.advance(3_000);
    expect(terms[1]?.me.token).toBe(2);
  });

  it("tries again, more and more slowly, while the server refuses for a reason that passes", async () => {
    const s = setup();
    s.server.answers.acquire = () => ({
      failure: { reason: "LIMIT", message: "too many waiters" },
    });
    const { terms, over } = leading(s);
    await s.time.advance(20_000);
    const tries = acquires(s).length;
    expect(tries).toBeGreaterThan(10);
    expect(tries).toBeLessThan(40);
    delete s.server.answers.acquire;
    await s.time.advance(2_000);
    expect(terms).toHaveLength(1);
    expect(over.settled).toBe(false);
  });

  it("rejects when it is refused for good", async () => {
    const s = setup();
    s.server.answers.acquire = () => ({ failure: { reason: "DENIED", message: "not yours" } });
    const { over } = leading(s);
    await s.time.settle();
    expect(over.error).toMatchObject({ code: "DENIED" });
  });

  it("rejects when the client is closed", async () => {
    const s = setup();
    const { terms, over } = leading(s);
    await s.time.settle();
    const closed = s.client.close();
    await s.time.settle();
    await closed;
    expect(terms[0]?.me.signal.aborted).toBe(true);
    terms[0]?.end();
    await s.time.settle();
    expect(over.error).toMatchObject({ code: "CLOSED" });
  });

  it("rejects when the lease that it was given has ended", async () => {
    const s = setup();
    const made = s.client.lease();
    await s.time.settle();
    const { terms, over } = leading(s, { lease: await made });
    await s.time.settle();
    s.server.connection.push({ leaseEnds: [{ sessionLease: 1, reason: v1.EndReason.END_REASON_EXPIRED }] });
    await s.time.settle();
    expect(terms[0]?.me.state).toMatchObject({ is: "lost" });
    terms[0]?.end();
    await s.time.settle();
    expect(over.error).toMatchObject({ code: "LOST" });
  });

  it("refuses to wait for itself", async () => {
    const s = setup();
    const inner = watch(s.client.lead("e", () => s.client.lead("e", () => {})));
    await s.time.settle();
    expect(inner.error).toMatchObject({ code: "DEADLOCK" });
  });
});

describe("aborting a lead", () => {
  it("before it begins: nothing happens", async () => {
    const s = setup();
    const { over } = leading(s, { signal: AbortSignal.abort() });
    await s.time.settle();
    expect(over).toEqual({ settled: true, value: undefined });
    expect(s.server.connections).toHaveLength(0);
  });

  it("while it stands: resolves, and leaves the queue", async () => {
    const s = setup();
    s.server.answers.acquire = () => null;
    const stop = new AbortController();
    const { terms, over } = leading(s, { signal: stop.signal });
    await s.time.settle();
    stop.abort();
    await s.time.settle();
    expect(over).toEqual({ settled: true, value: undefined });
    expect(terms).toHaveLength(0);
    expect(s.server.connection.commands.at(-1)).toMatchObject({ cancelAcquire: {} });
  });

  it("between two tries: resolves at once", async () => {
    const s = setup();
    s.server.answers.acquire = () => ({ failure: { reason: "STORE_DOWN", message: "the disk is full" } });
    const stop = new AbortController();
    const { over } = leading(s, { signal: stop.signal });
    await s.time.advance(10_000);
    const before = acquires(s).length;
    stop.abort();
    await s.time.settle();
    expect(over).toEqual({ settled: true, value: undefined });
    await s.time.advance(5_000);
    expect(acquires(s)).toHaveLength(before);
    expect(s.time.timers).toBe(0);
  });

  it("while it leads: tells the leader, and resolves once it has settled and resigned", async () => {
    for (const how of ["resolves", "rejects with the reason", "rejects with an AbortError"]) {
      const s = setup();
      const stop = new AbortController();
      const { terms, over } = leading(s, { signal: stop.signal });
      await s.time.settle();
      const me = terms[0]?.me as Leadership;
      const reason = new Error("shutting down");
      stop.abort(reason);
      await s.time.settle();
      expect(me.signal.reason).toBe(reason);
      expect(me.token).toBe(1);
      expect(over.settled).toBe(false);
      const abortError = Object.assign(new Error("aborted"), { name: "AbortError" });
      terms[0]?.end(how === "resolves" ? undefined : how === "rejects with the reason" ? reason : abortError);
      await s.time.settle();
      expect(over).toEqual({ settled: true, value: undefined });
      expect(s.server.connection.commands.some((command) => command.release?.token === 1)).toBe(true);
      expect(acquires(s)).toHaveLength(1);
    }
  });

  it("does not hide an error of the callback", async () => {
    const s = setup();
    const stop = new AbortController();
    const { terms, over } = leading(s, { signal: stop.signal });
    await s.time.settle();
    stop.abort();
    const error = new Error("could not put the tools away");
    terms[0]?.end(error);
    await s.time.settle();
    expect(over.error).toBe(error);
  });

  it("after a loss: resolves without standing again", async () => {
    const s = setup();
    const stop = new AbortController();
    const { terms, over } = leading(s, { signal: stop.signal });
    await s.time.settle();
    takeAway(s, 1);
    await s.time.settle();
    stop.abort();
    terms[0]?.end(new Error("lost"));
    await s.time.settle();
    expect(over).toEqual({ settled: true, value: undefined });
    expect(acquires(s)).toHaveLength(1);
  });
});

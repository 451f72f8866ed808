/**
 * Consumes stamped messages, whatever broker they come from: in order within a key, each once, none of a stale
 * producer.
 *
 * The way of a message: its stamp is read; the key's mark is loaded if it is not known; `Order` says whether it is its
 * turn, or a duplicate, or stale, or must wait; its handler runs; what was handled is put on record; and only then the
 * broker is told that it may forget the message. Messages of one key are handled one after the other, those of
 * different keys side by side.
 *
 * The memory of one consumer is not the last word: while it stood still another one may have taken over. The record is.
 * When it refuses a position, what is in memory of that key is out of date, and is loaded again.
 */
import { FenceError } from "../errors.js";
import type { Floor } from "../fence.js";
import { checkResource } from "../token.js";
import type { Report, Settings } from "./consumer-options.js";
import type { Mark } from "./high-water.js";
import { Order } from "./order.js";
import { type Position, type ReceivedHeaders, readStamp, type Stamp } from "./stamp.js";
import { pause, pauseMs, systemTiming, type Timing } from "./timing.js";
import { type Handler, record, work } from "./work.js";

/**
 * What is to be told to the broker of a message: `done` that it may forget it, `rejected` that nobody can handle it,
 * and `returned` that somebody else is to get it.
 */
export type Settled = "done" | "rejected" | "returned";

interface Delivery<M> {
  readonly stamp: Stamp;
  readonly message: M;
  /** Where it came from: see `forget`. */
  readonly source: object | undefined;
  /** Called once. */
  readonly settle: (settled: Settled) => void;
  /** It needs nobody's attention now: it is settled, or waits for missing messages, or the consumer ends. */
  readonly passed: () => void;
}

/** Somebody works at a key. The inbox has what has come since, and was not offered to the order yet. */
interface Lane<M> {
  readonly inbox: Delivery<M>[];
}

const positionOf = ({ key, token, sequence }: Stamp): Position => ({ key, token, sequence });

export class OrderedConsumer<M, Tx> {
  /** Resolves when it has ended because it was closed. Rejects when it has ended for another reason. */
  readonly ended: Promise<void>;
  readonly #handler: Handler<M, Tx>;
  readonly #settings: Settings<Tx>;
  readonly #timing: Timing;
  readonly #stopDelivery: () => Promise<void>;
  readonly #order: Order<Delivery<M>>;
  readonly #lanes = new Map<string, Lane<M>>();
  readonly #running = new Set<Promise<void>>();
  /** Lanes that wait until fewer others are worked at. */
  readonly #turns: (() => void)[] = [];
  #working = 0;
  readonly #ending = new AbortController();
  /** What goes back to the broker when the consumer has ended; null: it has. */
  #aside: Delivery<M>[] | null = [];
  /** Counts how often everything was forgotten. */
  #epoch = 0;
  #resolveEnded!: (result: void | Promise<void>) => void;
  #cancelTimer: (() => void) | undefined;

  /** `stopDelivery`: tells the broker to deliver no more. Called once, when the consumer ends. */
  constructor(
    handler: Handler<M, Tx>,
    settings: Settings<Tx>,
    stopDelivery: () => Promise<void>,
    timing: Timing = systemTiming,
  ) {
    this.#handler = handler;
    this.#settings = settings;
    this.#stopDelivery = stopDelivery;
    this.#timing = timing;
    this.#order = new Order(settings, (gap) => {
      this.#report({ is: "gap", ...gap });
      // Deferred: the order is in the middle of it.
      if (gap.skipped) queueMicrotask(() => this.#workAt(gap.key, []));
    });
    this.ended = new Promise((resolve) => {
      this.#resolveEnded = resolve;
    });
  }

  /**
   * Takes a message that the broker delivered. `settle` is called once, when it is known what to tell the broker.
   * Resolves when the next one may be taken by a reader that takes one at a time: this one is settled or waits for
   * missing ones.
   */
  accept(
    headers: ReceivedHeaders | null | undefined,
    message: M,
    settle: (settled: Settled) => void,
    source?: object,
  ): Promise<void> {
    let stamp: Stamp;
    try {
      stamp = readStamp(headers);
    } catch (error) {
      this.#report({ is: "invalid", error });
      settle("rejected");
      return Promise.resolve();
    }
    return new Promise((passed) => {
      const settleAndPass = (settled: Settled) => {
        settle(settled);
        passed();
      };
      const delivery = { stamp, message, source, settle: settleAndPass, passed };
      if (this.#ending.signal.aborted) this.#setAside([delivery]);
      else this.#workAt(stamp.key, [delivery]);
    });
  }

  #workAt(key: string, deliveries: readonly Delivery<M>[]): void {
    const lane = this.#lanes.get(key);
    if (lane) {
      lane.inbox.push(...deliveries);
      return;
    }
    const opened = { inbox: [...deliveries] };
    this.#lanes.set(key, opened);
    const running = this.#run(key, opened);
    this.#running.add(running);
    void running.finally(() => this.#running.delete(running));
  }

  /** Works at one key until nothing of it can be handled. Never rejects. */
  async #run(key: string, lane: Lane<M>): Promise<void> {
    if (this.#working < this.#settings.concurrency) this.#working += 1;
    else await new Promise<void>((resolve) => this.#turns.push(resolve));
    try {
      while (!this.#ending.signal.aborted) {
        if (!this.#order.knows(key) && lane.inbox.length > 0) {
          const epoch = this.#epoch;
          const mark = await this.#load(key);
          if (epoch !== this.#epoch) continue; // somebody else may have moved it meanwhile
          this.#learn(key, mark);
        }
        // From here to the end of the lane nothing may be awaited: what came meanwhile would stay in its inbox.
        for (const delivery of lane.inbox.splice(0)) this.#sort(delivery);
        const next = this.#order.take(key);
        if (!next) break;
        await this.#handle(next, lane);
      }
    } catch (error) {
      this.#end(error);
    }
    if (this.#ending.signal.aborted) this.#setAside(lane.inbox.splice(0));
    this.#lanes.delete(key);
    const next = this.#turns.shift();
    if (next) next();
    else this.#working -= 1;
  }

  /** Reads a mark. As often as a handler may fail, as the record may be away for a moment. */
  async #load(key: string): Promise<Mark | undefined> {
    const { highWater, attemptsMax, retryMs } = this.#settings;
    for (let attempt = 1; ; attempt++) {
      try {
        return await highWater.load(key);
      } catch (error) {
        if (attempt >= attemptsMax || this.#ending.signal.aborted) throw error;
        await pause(this.#timing, pauseMs(retryMs, attempt), this.#ending.signal);
      }
    }
  }

  #learn(key: string, mark: Mark | undefined): void {
    if (this.#order.learn(key, mark)) return;
    const message = `messages of ${this.#settings.keysMax} keys wait, and there is no room for another key`;
    throw new FenceError("LIMIT", message, { resource: key });
  }

  #sort(delivery: Delivery<M>): void {
    const { stamp } = delivery;
    if (this.#ending.signal.aborted) {
      this.#setAside([delivery]);
      return;
    }
    const offered = this.#order.offer(delivery, this.#timing.nowMs());
    if (offered === "held") {
      delivery.passed();
      this.#setTimer();
    } else if (offered === "duplicate") {
      this.#report({ is: "duplicate", ...positionOf(stamp), applied: false });
      delivery.settle("done");
    } else if (offered === "stale") {
      const floor = this.#order.floor(stamp.key) as number;
      this.#report({ is: "stale", ...positionOf(stamp), floor, applied: false });
      delivery.settle("done");
    } else if (offered === "full") {
      this.#setAside([delivery]);
      const message = `no more messages can be held back behind those of ${JSON.stringify(stamp.key)} that are missing`;
      this.#end(new FenceError("LIMIT", message, { resource: stamp.key, token: stamp.token }));
    }
  }

  async #handle(delivery: Delivery<M>, lane: Lane<M>): Promise<void> {
    const { stamp, message, settle } = delivery;
    const bench = {
      handler: this.#handler,
      settings: this.#settings,
      timing: this.#timing,
      signal: this.#ending.signal,
    };
    const verdict = await work(stamp, message, bench);
    this.#order.done(stamp.key);
    switch (verdict.is) {
      case "handled":
        this.#report({ is: stamp.sequence === 0 ? "raised" : "handled", ...positionOf(stamp) });
        return settle("done");
      case "refused": {
        const { mark, applied } = verdict;
        lane.inbox.unshift(...this.#order.forget(stamp.key)); // to be judged by what is on record now
        if (mark.token > stamp.token) {
          this.#report({ is: "stale", ...positionOf(stamp), floor: mark.token, applied });
        } else this.#report({ is: "duplicate", ...positionOf(stamp), applied });
        return settle("done");
      }
      case "failed":
        return this.#fail(delivery, verdict.error, verdict.handled);
      case "ended":
        return this.#setAside([delivery]);
    }
  }

  async #fail(delivery: Delivery<M>, error: unknown, handled: boolean): Promise<void> {
    const { stamp } = delivery;
    this.#report({ is: "failed", ...positionOf(stamp), error });
    // A record that cannot be written is not the message's fault, and no reason to give it up.
    if (this.#settings.onFailure === "stop" || handled) return this.#giveUp(delivery, error);
    try {
      if (!stamp.shared) await record(this.#settings.highWater, stamp);
    } catch (notRecorded) {
      return this.#giveUp(delivery, notRecorded);
    }
    delivery.settle("rejected");
  }

  #giveUp(delivery: Delivery<M>, error: unknown): void {
    this.#end(error);
    this.#setAside([delivery]);
  }

  #setTimer(): void {
    if (this.#cancelTimer || this.#ending.signal.aborted) return;
    const dueMs = this.#order.dueMs();
    if (dueMs === undefined) return;
    // One timer is enough: what is held later is due later.
    this.#cancelTimer = this.#timing.after(Math.max(0, dueMs - this.#timing.nowMs()), () => {
      this.#cancelTimer = undefined;
      this.#order.overdue(this.#timing.nowMs());
      this.#setTimer();
    });
  }

  #report(report: Report): void {
    try {
      this.#settings.report(report);
    } catch (error) {
      // Thrown into the middle of somebody else's work it would do harm.
      process.emitWarning(`the report function of a consumer threw: ${error}`, "LeaseholdWarning");
    }
  }

  /** The highest token whose messages are on record. Rejects INVALID. */
  async inspect(resource: string): Promise<Floor> {
    const mark = await this.#settings.highWater.load(checkResource(resource));
    return { resource, floor: mark?.token ?? 0 };
  }

  /** Forgets what is on record of a key: old producers are let in again. For administrators. Rejects INVALID. */
  async reset(resource: string): Promise<void> {
    await this.#settings.highWater.reset(checkResource(resource));
    this.#workAt(resource, this.#order.forget(resource));
  }

  /** Goes on behind the gap at which a key stands. False: it stands at none. Throws INVALID. */
  skip(resource: string): boolean {
    return this.#order.skip(checkResource(resource));
  }

  /**
   * Forgets everything that is not in the hands of a handler: the broker will deliver it anew, to this consumer or to
   * another one, and what is known of the keys may be out of date by then. With a source: only what came from there.
   */
  forget(source?: object): void {
    this.#epoch += 1;
    const matches = (delivery: Delivery<M>) => source === undefined || delivery.source === source;
    const forgotten = this.#order.clear(source && matches);
    for (const lane of this.#lanes.values()) forgotten.push(...lane.inbox.splice(0));
    for (const delivery of forgotten) {
      if (matches(delivery)) delivery.settle("returned");
      else this.#workAt(delivery.stamp.key, [delivery]);
    }
  }

  /** Ends it in order: what is in the hands of a handler is finished, everything else goes back to the broker. */
  async close(): Promise<void> {
    this.#end(undefined);
    await this.ended.catch(() => {}); // told to whoever waits for that
  }

  /** Ends it before anybody could wait for its end: what began it has failed, and says so. */
  abandon(error: unknown): void {
    this.ended.catch(() => {});
    this.#end(error);
  }

  /** Ends it because of an error. */
  fail(error: unknown): void {
    this.#end(error ?? new FenceError("UNREACHABLE", "the broker has gone"));
  }

  #end(error: unknown): void {
    if (this.#ending.signal.aborted) return;
    this.#ending.abort();
    this.#cancelTimer?.();
    for (const lane of this.#lanes.values()) this.#setAside(lane.inbox.splice(0));
    this.#setAside(this.#order.clear());
    this.#resolveEnded(this.#finish(error));
  }

  #setAside(deliveries: readonly Delivery<M>[]): void {
    for (const delivery of deliveries) {
      if (this.#aside) this.#aside.push(delivery);
      else delivery.settle("returned");
      delivery.passed(); // a reader that takes one at a time must not wait: it is to be stopped
    }
  }

  async #finish(error: unknown): Promise<void> {
    let failure = error;
    try {
      // First, or the broker would deliver to this very consumer what is given back.
      await this.#stopDelivery();
    } catch (notStopped) {
      failure ??= notStopped;
    }
    await Promise.all(this.#running);
    for (const delivery of this.#aside ?? []) delivery.settle("returned");
    this.#aside = null;
    if (failure !== undefined) throw failure;
  }
}

/**
 * Publishes messages under a lock, stamped with its token and a sequence.
 *
 *     holder 1 (token 33) has "paid" in hand and stalls; its lease ends
 *     holder 2 (token 34) is granted the lock, and publishes "cancelled"
 *     holder 1 wakes and publishes "paid"           <- the broker cannot know; the consumer drops it: 33 < 34
 *
 * What it takes for that, and for an order without gaps:
 *
 * - **A marker first.** Between the grant and the first message the new holder reads, and what it reads must not become
 *   old. So a message without payload (sequence 0) goes ahead, and raises the consumers' high-water mark.
 * - **A sequence belongs to a message for good.** Its confirm may be lost though the broker has it. Sent again it has
 *   the same sequence, and is a duplicate to the consumer; with a new one it would be a new message. And no other
 *   message gets the sequence of one that failed: it may be there.
 * - **No gap on purpose.** When a message has failed in all attempts, nothing more is published until `flush` has sent
 *   it again: the consumers would wait for it.
 * - **A flush before the release.** The next holder's marker makes everything stale that comes after it. What was not
 *   confirmed when the lock was released may be that.
 */
import { FenceError } from "../errors.js";
import { type Fenced, type Hold, holdOf, holdsOf } from "../hold.js";
import { checkKeys, checkWhole } from "../token.js";
import type { Stamp } from "./stamp.js";
import { pause, pauseMs, systemTiming, type Timing } from "./timing.js";

/** How messages are sent to one destination. */
export interface Transport<M> {
  /** Throws INVALID for a message that cannot be sent, before it has a sequence. */
  check(message: M): void;
  /**
   * Resolves when the broker has confirmed. Rejects UNREACHABLE when it certainly was not sent, NOT_FOUND when the
   * broker had nobody to give it to, and anything else when that is not known. `message` undefined: a marker.
   */
  send(stamp: Stamp, message: M | undefined): Promise<void>;
}

export interface ProducerOptions {
  /** How many messages of a lock may be unconfirmed at a time; one more is refused with LIMIT. Default: 1,000. */
  readonly unconfirmedMax?: number | undefined;
  /** How long to wait for a confirm before the message is sent again. Default: 10,000. */
  readonly confirmMs?: number | undefined;
  /** How often a message is sent before it counts as failed. Default: 3. */
  readonly attemptsMax?: number | undefined;
  /** The pause after the first failed attempt; it doubles with each one, up to 30,000. Default: 100. */
  readonly retryMs?: number | undefined;
  /** Ticks for each message, which takes the timestamp along: `client.clock`. */
  readonly clock?: { tick(): number } | undefined;
}

export const PRODUCER_KEYS = [
  "unconfirmedMax",
  "confirmMs",
  "attemptsMax",
  "retryMs",
  "clock",
] as const satisfies readonly (keyof ProducerOptions)[];

interface Settings {
  readonly unconfirmedMax: number;
  readonly confirmMs: number;
  readonly attemptsMax: number;
  readonly retryMs: number;
  readonly clock: { tick(): number } | undefined;
}

const DAY_MS = 86_400_000;
/** Locks whose sequences are remembered: those that are held at a time. */
const TRACKS_MAX = 10_000;

interface Sending<M> {
  readonly stamp: Stamp;
  /** Undefined: a marker. */
  readonly message: M | undefined;
  /** The broker may have it. */
  maybeSent: boolean;
}

/** What was published under one hold. */
class Track<M> {
  next = 1;
  /** The marker is confirmed. */
  raised = false;
  readonly sending = new Map<number, Promise<void>>();
  /** Sent as often as may be, and not confirmed; in the order of their sequences. */
  failed: Sending<M>[] = [];

  constructor(
    public hold: Hold,
    readonly token: number,
  ) {}

  /** Nothing will be published under this hold any more. */
  get over(): boolean {
    return this.hold.remainingMs() === 0 && this.sending.size === 0;
  }
}

/** Publishes to one destination. Made by `rabbitmqProducer`, `kafkajsProducer` and `platformaticProducer`. */
export class StampedProducer<M> {
  readonly #transport: Transport<M>;
  readonly #settings: Settings;
  readonly #timing: Timing;
  readonly #tracks = new Map<string, Track<M>>();

  constructor(
    transport: Transport<M>,
    options: ProducerOptions,
    more: readonly string[],
    timing: Timing = systemTiming,
  ) {
    checkKeys(options, [...PRODUCER_KEYS, ...more], "the options of a producer");
    this.#transport = transport;
    this.#timing = timing;
    this.#settings = {
      unconfirmedMax: checkWhole(options.unconfirmedMax ?? 1_000, "unconfirmedMax", 1, 1_000_000),
      confirmMs: checkWhole(options.confirmMs ?? 10_000, "confirmMs", 1, DAY_MS),
      attemptsMax: checkWhole(options.attemptsMax ?? 3, "attemptsMax", 1, 1_000),
      retryMs: checkWhole(options.retryMs ?? 100, "retryMs", 0, DAY_MS),
      clock: options.clock,
    };
  }

  /**
   * Publishes the marker of what the lock stands for, and resolves when the broker has it: consumers refuse lower
   * tokens from the marker on. Of a shared lock it only makes consumers check the token. The option `fence` of the
   * client's `withLock` and `acquire` calls it at the grant. Rejects LOST, INVALID, UNREACHABLE, OUTCOME_UNKNOWN.
   */
  async raise(lock: Fenced): Promise<void> {
    const holds = holdsOf(lock);
    for (const hold of holds) void hold.token; // throws LOST before anything is sent
    await Promise.all(holds.map((hold) => this.#raise(this.#track(hold))));
  }

  async #raise(track: Track<M>): Promise<void> {
    await this.#send(track, { stamp: this.#stamp(track, 0), message: undefined, maybeSent: false });
    track.raised = true;
  }

  /**
   * Begins to publish under a lock: publishes the marker unless `raise` has. Opened again for the same lock it goes on
   * with the next sequence. Rejects LOST, INVALID, LIMIT, UNREACHABLE, OUTCOME_UNKNOWN.
   *
   * One producer for a lock and a destination: two, in one process or in several, would give the same sequences to
   * different messages, and consumers drop the second ones as duplicates. `after`: the last sequence that was used
   * under this token, for a process that goes on with the work of another one under the same token.
   */
  async open(lock: Fenced, { after }: { readonly after?: number | undefined } = {}): Promise<Publisher<M>> {
    const hold = holdOf(lock);
    void hold.token;
    const track = this.#track(hold);
    if (after !== undefined) track.next = Math.max(track.next, checkWhole(after, "after", 0, 2 ** 52) + 1);
    if (!track.raised) await this.#raise(track);
    return new Publisher(
      hold,
      (message) => this.#publish(track, message),
      () => this.#flush(track),
    );
  }

  /**
   * Runs a function that publishes under a lock, and flushes when it has ended, also when it threw: call it inside of
   * `withLock`, so that the lock is released only then. Resolves to what the function returned. Rejects with what it
   * threw, with LOST when the lock was lost before everything was confirmed, and as `open` and `flush` do.
   *
   * @example
   * await client.withLock("orders/42", (lock) =>
   *   producer.under(lock, async (publisher) => {
   *     const order = await read(42);
   *     await publisher.publish({ content: JSON.stringify({ ...order, state: "paid" }) });
   *   }),
   * );
   */
  async under<R>(lock: Fenced, publish: (publisher: Publisher<M>) => Promise<R> | R): Promise<R> {
    const publisher = await this.open(lock);
    let result: R;
    try {
      result = await publish(publisher);
    } catch (error) {
      await publisher.flush().catch(() => {}); // the first error is the one to tell
      throw error;
    }
    await publisher.flush();
    void publisher.hold.token;
    return result;
  }

  /**
   * The track of a hold. A higher token of the same resource begins a new one in the place of the old. A lower one gets
   * one that is not kept: it is stale, and must not displace the sequence of the holder, whose next message would look
   * like a duplicate.
   */
  #track(hold: Hold): Track<M> {
    const known = this.#tracks.get(hold.resource);
    if (known?.token === hold.token) {
      known.hold = hold; // of the same grant, and possibly known to be held for longer
      return known;
    }
    const track = new Track<M>(hold, hold.token);
    if (known && known.token > track.token) return track;
    if (!known && this.#tracks.size >= TRACKS_MAX) this.#sweep();
    this.#tracks.set(hold.resource, track);
    return track;
  }

  /** Forgets holds that are over. Those that are not must not be: their sequences would begin anew. */
  #sweep(): void {
    for (const [resource, track] of this.#tracks) if (track.over) this.#tracks.delete(resource);
    if (this.#tracks.size < TRACKS_MAX) return;
    const message = `messages are published under ${TRACKS_MAX} locks, and none of them is known to be over`;
    throw new FenceError("LIMIT", message);
  }

  #stamp({ hold, token }: Track<M>, sequence: number): Stamp {
    const timestamp = this.#settings.clock?.tick();
    return { key: hold.resource, token, sequence, shared: !hold.raises, timestamp };
  }

  async #publish(track: Track<M>, message: M): Promise<Stamp> {
    void track.hold.token;
    this.#transport.check(message);
    const { resource: key } = track.hold;
    const [unconfirmed] = track.failed;
    if (unconfirmed) {
      const which = `message ${unconfirmed.stamp.sequence} of ${JSON.stringify(key)}`;
      const text = `${which} was not confirmed; flush() sends it again`;
      throw new FenceError("OUTCOME_UNKNOWN", text, { resource: key, token: track.token });
    }
    if (track.sending.size >= this.#settings.unconfirmedMax) {
      const text = `${track.sending.size} messages of ${JSON.stringify(key)} are unconfirmed`;
      throw new FenceError("LIMIT", text, { resource: key, token: track.token });
    }
    const stamp = this.#stamp(track, track.next);
    track.next += 1;
    await this.#sendTracked(track, { stamp, message, maybeSent: false });
    return stamp;
  }

  #sendTracked(track: Track<M>, sending: Sending<M>): Promise<void> {
    const { sequence } = sending.stamp;
    const sent = this.#send(track, sending).then(
      () => void track.sending.delete(sequence),
      (error: unknown) => {
        track.sending.delete(sequence);
        track.failed.push(sending);
        track.failed.sort((a, b) => a.stamp.sequence - b.stamp.sequence);
        throw error;
      },
    );
    track.sending.set(sequence, sent);
    return sent;
  }

  async #flush(track: Track<M>): Promise<void> {
    await Promise.allSettled(track.sending.values());
    for (const failed of track.failed.splice(0)) this.#sendTracked(track, failed).catch(() => {}); // awaited below
    const results = await Promise.allSettled(track.sending.values());
    for (const result of results) if (result.status === "rejected") throw result.reason;
  }

  /** Sends a message, always with the same stamp, until it is confirmed or has been sent as often as may be. */
  async #send(track: Track<M>, sending: Sending<M>): Promise<void> {
    const { attemptsMax, retryMs } = this.#settings;
    for (let attempt = 1; ; attempt++) {
      const lost = whyLost(track.hold); // nothing is sent for a lock that is lost
      if (lost) throw sending.maybeSent ? notConfirmed(sending, lost.error) : lost.error;
      try {
        await this.#confirmed(this.#transport.send(sending.stamp, sending.message));
        return;
      } catch (error) {
        if (FenceError.is(error, "NOT_FOUND")) throw error;
        if (!FenceError.is(error, "UNREACHABLE")) sending.maybeSent = true;
        if (attempt >= attemptsMax) throw notConfirmed(sending, error);
      }
      await pause(this.#timing, pauseMs(retryMs, attempt), track.hold.signal);
    }
  }

  /** Waits for a confirm, but not for ever: a broker that is short of memory or disk lets its producers hang. */
  async #confirmed(sent: Promise<void>): Promise<void> {
    let cancel: (() => void) | undefined;
    const late = new Promise<never>((_resolve, reject) => {
      const { confirmMs } = this.#settings;
      cancel = this.#timing.after(confirmMs, () =>
        reject(new Error(`the broker has not confirmed in ${confirmMs} ms`)),
      );
    });
    try {
      await Promise.race([sent, late]);
    } finally {
      cancel?.();
    }
  }
}

/** What a lock throws that is not held any more. */
function whyLost(hold: Hold): { readonly error: unknown } | undefined {
  try {
    void hold.token;
    return undefined;
  } catch (error) {
    return { error };
  }
}

function notConfirmed({ stamp, maybeSent }: Sending<unknown>, cause: unknown): FenceError {
  const { key, token, sequence } = stamp;
  const what = `message ${sequence} of ${JSON.stringify(key)} under the token ${token}`;
  const details = { resource: key, token, cause };
  if (maybeSent) return new FenceError("OUTCOME_UNKNOWN", `${what} was sent and not confirmed`, details);
  return new FenceError("UNREACHABLE", `${what} could not be sent`, details);
}

/** Publishes under one lock. Made by `open` and `under` of a producer. */
export class Publisher<M> {
  /** The hold under which it publishes. */
  readonly hold: Hold;
  readonly #publish: (message: M) => Promise<Stamp>;
  readonly #flush: () => Promise<void>;

  /** Use `open` or `under` of a producer. */
  constructor(hold: Hold, publish: (message: M) => Promise<Stamp>, flush: () => Promise<void>) {
    this.hold = hold;
    this.#publish = publish;
    this.#flush = flush;
  }

  /**
   * Publishes a message with the next sequence, and resolves to its stamp when the broker has confirmed it. Calls need
   * not wait for each other: messages are sent in the order of the calls.
   *
   * Rejects LOST (nothing was sent), INVALID, LIMIT (too many are unconfirmed: wait for some), NOT_FOUND (the broker
   * had no queue for it), UNREACHABLE (it was not sent), and OUTCOME_UNKNOWN (the broker may have it). After the last
   * three nothing more is published until `flush` has sent the message again.
   */
  publish(message: M): Promise<Stamp> {
    return this.#publish(message);
  }

  /**
   * Waits until everything is confirmed, and sends again, with their old sequences, messages that have failed. Call it
   * before the lock is released. Rejects NOT_FOUND, UNREACHABLE, OUTCOME_UNKNOWN: not all is confirmed.
   */
  flush(): Promise<void> {
    return this.#flush();
  }
}

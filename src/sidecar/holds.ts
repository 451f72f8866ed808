/**
 * The locks that the sidecar holds for applications.
 *
 * What ends a hold when its application is gone? A sidecar that renews for ever on behalf of somebody who has crashed is
 * worse than no sidecar, so every hold has one of three ties:
 *
 * - `connection`: the stream of /hold. The operating system closes the connection of a process that dies, however it
 *   dies, and the lock is released at that moment.
 * - `heartbeat`: the lock hangs on a lease of its own that wants progress: without a /keep in time the lease ends at the
 *   server, which counts it as a loss, lock delay and all. Nobody has to trust a timer of the sidecar's.
 * - `maxHold`: it ends so long after the grant.
 *
 * A hold that was lost is remembered for a while, so that its application hears why.
 */
import { randomBytes } from "node:crypto";
import { type Lease, LeaseholdError, type Lock, type LostReason } from "@leasehold/client";
import type { HoldBody } from "./api/schemas.js";
import { monotonicMs } from "./clock.js";
import { HttpProblem } from "./http/problem.js";

/** Lost holds that are remembered. */
const LOST_MAX = 1_000;

export type Tie = HoldBody["tie"];

export interface HoldOptions {
  readonly tie: Tie;
  /** Of its lease: no promise made to it lasts longer. */
  readonly ttlMs: number;
  /** With `heartbeat`: the lease that wants progress, and how often. */
  readonly lease?: Lease | undefined;
  readonly heartbeatMs?: number | undefined;
}

/** `closing`: the sidecar stops. */
export type EndReason = LostReason | "closing";

/** Who is to hear of a hold's end. */
export interface HoldListener {
  /** It was given back by a request. */
  released(): void;
  lost(reason: EndReason): void;
  /** The sidecar is about to stop, and asks for an orderly end. */
  closing(): void;
}

/** Losses of which the server waits to hear that the holder has stopped, or for its last promise to run out. */
export const isConfirmed = (reason: EndReason): boolean => reason === "forced" || reason === "max_hold";

export class Hold {
  readonly id = randomBytes(12).toString("base64url");
  readonly lock: Lock;
  readonly tie: Tie;
  readonly #options: HoldOptions;
  readonly #table: Holds;
  #listener: HoldListener | null = null;
  #release: Promise<boolean> | null = null;
  #lost: LostReason | null = null;

  constructor(lock: Lock, options: HoldOptions, table: Holds) {
    this.lock = lock;
    this.tie = options.tie;
    this.#options = options;
    this.#table = table;
    lock.on("lost", (reason) => this.#onLost(reason));
  }

  /** Catches up with a loss that came before anybody listened. */
  notice(): void {
    const { state } = this.lock;
    if (state.is === "lost" && this.#lost === null) this.#onLost(state.reason);
  }

  listen(listener: HoldListener): void {
    this.#listener = listener;
    if (this.#lost !== null) listener.lost(this.#lost);
  }

  /** Held at this moment, by the clock and not by what has been heard. */
  get held(): boolean {
    const { is } = this.lock.state;
    return is === "held" || is === "jeopardy";
  }

  get ttlMs(): number {
    return this.#options.ttlMs;
  }

  /** The application lives. Throws LOST, and INVALID when the hold has no heartbeat. */
  keep(): void {
    if (!this.#options.lease) throw new LeaseholdError("INVALID", "this hold has no heartbeat: nothing has to keep it");
    this.assertHeld();
    this.lock.progress();
  }

  /** Throws LOST. */
  assertHeld(): void {
    if (this.#release === null || this.#lost !== null) this.lock.assertHeld();
    else throw new LeaseholdError("LOST", "the hold has been released", { retryable: false });
  }

  /**
   * Gives the lock back, or confirms after a loss that its application has stopped. Resolves whether this released it.
   * `closing`: not because somebody asked for it.
   */
  async release(closing = false): Promise<boolean> {
    const first = this.#release === null;
    if (first && this.held) {
      if (closing) this.#listener?.lost("closing");
      else this.#listener?.released();
    }
    this.#table.remove(this);
    this.#release ??= this.#giveBack();
    return (await this.#release) && first;
  }

  async #giveBack(): Promise<boolean> {
    const done = await this.lock.release();
    await this.#options.lease?.revoke();
    return done;
  }

  /** Asks for an orderly end. */
  closing(): void {
    this.#listener?.closing();
  }

  #onLost(reason: LostReason): void {
    this.#lost = reason;
    this.#table.lost(this, reason);
    this.#listener?.lost(reason);
    // Whoever never confirms has been promised nothing any more by then; the lease is not to be renewed for nobody.
    const confirmAfterMs = isConfirmed(reason) ? this.#options.ttlMs : 0;
    setTimeout(() => {
      this.#release ??= this.#giveBack();
    }, confirmAfterMs).unref();
  }

  /** How much longer it is held at least: at the moment of the call, and as a moment of the machine's clock. */
  belief(): { remainingMs: number; untilMonotonicMs: number } {
    const nowMs = monotonicMs();
    const { state } = this.lock;
    const remainingMs = "remainingMs" in state ? Math.max(0, Math.floor(state.remainingMs)) : 0;
    return { remainingMs, untilMonotonicMs: Math.floor(nowMs + remainingMs) };
  }

  view(): HoldBody {
    const { lock, tie } = this;
    const { state } = lock;
    const { token, timestamp, slots } = lock.grant;
    const { heartbeatMs } = this.#options;
    return {
      holdId: this.id,
      name: lock.name,
      mode: lock.mode,
      token,
      timestamp,
      slots: [...slots],
      state: state.is,
      ...this.belief(),
      tie,
      ...(heartbeatMs === undefined ? {} : { heartbeatMs }),
      ...(state.is === "lost" ? { lost: state.reason } : {}),
    };
  }
}

/** All of them. */
export class Holds {
  readonly #max: number;
  readonly #onLost: (reason: LostReason) => void;
  readonly #holds = new Map<string, Hold>();
  readonly #byToken = new Map<number, Hold>();
  /** Lost, and not yet confirmed by their application; the oldest first. */
  readonly #lost = new Map<string, Hold>();
  #waits = 0;
  #empty: () => void = () => {};

  /** At most `max` are held and waited for at the same time. */
  constructor(max: number, onLost: (reason: LostReason) => void) {
    this.#max = max;
    this.#onLost = onLost;
  }

  get size(): number {
    return this.#holds.size;
  }

  get waits(): number {
    return this.#waits;
  }

  /** A place for a hold that is waited for; to be given back exactly once. Throws LIMIT. */
  reserve(): () => void {
    if (this.#holds.size + this.#waits >= this.#max) {
      const message = `the sidecar holds and awaits ${this.#max} locks; that is its limit (--holds)`;
      throw new HttpProblem(429, "LIMIT", message, { retryable: true, headers: { "retry-after": "1" } });
    }
    this.#waits++;
    return () => {
      this.#waits--;
    };
  }

  add(lock: Lock, options: HoldOptions): Hold {
    const hold = new Hold(lock, options, this);
    this.#holds.set(hold.id, hold);
    this.#byToken.set(lock.grant.token, hold);
    hold.notice();
    return hold;
  }

  /** Also one that is lost. Throws NOT_FOUND. */
  get(id: string): Hold {
    const hold = this.#holds.get(id) ?? this.#lost.get(id);
    if (hold) return hold;
    throw new HttpProblem(404, "NOT_FOUND", "the sidecar has no such hold: it was released, or lost some time ago");
  }

  byToken(name: string, token: number): Hold | undefined {
    const hold = this.#byToken.get(token);
    return hold?.lock.name === name ? hold : undefined;
  }

  /** In the order of the grants. */
  all(): IterableIterator<Hold> {
    return this.#holds.values();
  }

  remove(hold: Hold): void {
    this.#holds.delete(hold.id);
    this.#lost.delete(hold.id);
    this.#byToken.delete(hold.lock.grant.token);
    if (this.#holds.size === 0) this.#empty();
  }

  lost(hold: Hold, reason: LostReason): void {
    if (!this.#holds.delete(hold.id)) return;
    if (this.#holds.size === 0) this.#empty();
    this.#onLost(reason);
    this.#lost.set(hold.id, hold);
    for (const [id, oldest] of this.#lost) {
      if (this.#lost.size <= LOST_MAX) break;
      this.#lost.delete(id);
      this.#byToken.delete(oldest.lock.grant.token);
    }
  }

  /** Resolves when nothing is held, or the time is over. */
  async drained(msMax: number): Promise<void> {
    if (this.#holds.size === 0) return;
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, msMax);
      this.#empty = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }

  /** Gives all of them back, since the sidecar stops. */
  async releaseAll(): Promise<void> {
    await Promise.all([...this.#holds.values()].map((hold) => hold.release(true)));
  }
}

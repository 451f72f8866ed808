/**
 * Admission: whether a request may begin to write, by the token that it presents. One logic for HTTP and gRPC.
 *
 * The floor of the resource is read. A lower token is stale. An equal one is let in. A higher one raises the floor, if it may
 * (permission.ts). A shared hold is let in if it is not lower, and raises nothing.
 *
 * Admission is not a fence yet. What is let in takes its time, and the newer holder may overtake it:
 *
 *     token 33: admitted; its handler reads 41, and is slow
 *     token 34: admitted (the floor is 34 from here on); its handler reads 41, writes 42; done
 *     token 33: its handler writes 42                               <- one of the two updates is lost
 *
 * Two things close that gap, and a service needs one of them:
 *
 * - The handler checks again in the step that writes: with the fence of its database (`admitted.claim`).
 * - Turns (turns.ts): 34 raises the floor as it arrives, so that nothing older is let in any more, and waits until what
 *   was let in before has ended. When its turn comes it is checked again. That holds within one process, and for handlers
 *   that have ended when they say so.
 */
import { invalid, stale } from "../errors.js";
import type { Claim } from "../hold.js";
import { checkWhole, readToken } from "../token.js";
import type { HighWaterStore } from "./high-water.js";
import { Permission, type PermissionOptions } from "./permission.js";
import type { Asked } from "./target.js";
import { type Presence, type Turn, Turns } from "./turns.js";
import { within } from "./within.js";

export interface AdmissionOptions<Caller> extends PermissionOptions<Caller> {
  /** Where the floors are kept: `memoryStore`, `levelStore`, `fenceStore`, or your own. */
  readonly store: HighWaterStore;
  /**
   * Whether requests take turns, so that those with an older token have ended before one with a newer token begins. Within
   * this process. Default: false.
   */
  readonly serialize?: boolean | undefined;
  /** How many may wait for their turn at one resource; beyond, they are refused with LIMIT. Default: 100. */
  readonly waitingMax?: number | undefined;
  /** How long to wait for a turn, in milliseconds; then LIMIT. Default: 10,000. */
  readonly waitMs?: number | undefined;
  /** How long the store and `validate` may take, in milliseconds; then UNREACHABLE. Default: 5,000. */
  readonly limitMs?: number | undefined;
}

export const ADMISSION_OPTIONS = [
  ...["store", "authorize", "validate", "validationsMax"],
  ...["serialize", "waitingMax", "waitMs", "limitMs"],
];

const WAITING_MAX = 100;
const WAITING_TOTAL_MAX = 10_000;
const WAIT_MS = 10_000;
const LIMIT_MS = 5_000;
const LIMIT_MS_MAX = 600_000;

/** A request that was let in, as its handler sees it. */
export interface Admitted extends Asked {
  /** The same for a fence of the database that is written to: `orders.tx(admitted.claim, …)`. */
  readonly claim: Claim;
  /**
   * With `serialize`: aborted when somebody with a newer token waits for the end of this request, which is stale then. Stop,
   * write nothing more.
   */
  readonly signal: AbortSignal;
  /** Checks once more, against the store. Rejects STALE_TOKEN, UNREACHABLE. */
  check(): Promise<void>;
}

/** An admission, with its end. */
export interface Pass {
  readonly admitted: Admitted;
  /** The handler has ended. */
  end(): void;
}

/** A class and no literal: a literal with a getter has a shape of its own each time, and costs more than the check. */
class LetIn implements Admitted {
  readonly name: string;
  readonly slot: number | undefined;
  readonly resource: string;
  readonly token: number;
  readonly mode: "exclusive" | "shared";
  readonly claim: Claim;
  readonly #turn: Turn;
  readonly #check: () => Promise<unknown>;

  constructor({ name, slot, resource, token, mode }: Asked, turn: Turn, check: () => Promise<unknown>) {
    this.name = name;
    this.slot = slot;
    this.resource = resource;
    this.token = token;
    this.mode = mode;
    this.claim = slot === undefined ? { name, token, mode } : { name, token, mode, slot };
    this.#turn = turn;
    this.#check = check;
  }

  get signal(): AbortSignal {
    return this.#turn.signal;
  }

  async check(): Promise<void> {
    await this.#check();
  }
}

const ALONE: Turn = { signal: new AbortController().signal, end: () => {} };

export class Admission<Caller> {
  readonly store: HighWaterStore;
  readonly #permission: Permission<Caller>;
  readonly #turns: Turns | null;
  readonly #limitMs: number;

  /** Throws INVALID. */
  constructor(options: AdmissionOptions<Caller>) {
    const { store, serialize = false, waitingMax = WAITING_MAX, waitMs = WAIT_MS, limitMs = LIMIT_MS } = options;
    if (typeof store?.get !== "function" || typeof store.raise !== "function" || typeof store.reset !== "function") {
      throw invalid("the store must have get, raise and reset: see memoryStore(), levelStore() and fenceStore()");
    }
    if (typeof serialize !== "boolean") throw invalid("serialize must be true or false");
    this.store = store;
    this.#limitMs = checkWhole(limitMs, "limitMs", 1, LIMIT_MS_MAX);
    this.#permission = new Permission(options, this.#limitMs);
    const limits = {
      waitingMax: checkWhole(waitingMax, "waitingMax", 1, WAITING_TOTAL_MAX),
      waitingTotalMax: WAITING_TOTAL_MAX,
      waitMs: checkWhole(waitMs, "waitMs", 1, LIMIT_MS_MAX),
    };
    this.#turns = serialize ? new Turns(limits) : null;
  }

  get serializes(): boolean {
    return this.#turns !== null;
  }

  /**
   * Lets a request in. When its caller has gone, as `presence` tells, it waits for its turn no longer. Rejects DENIED,
   * STALE_TOKEN, LOST, LIMIT, UNREACHABLE, and with what `authorize` throws.
   */
  async admit(caller: Caller, asked: Asked, presence?: Presence): Promise<Pass> {
    await this.#permission.toWrite(caller, asked);
    const floor = await this.#check(asked);
    if (asked.mode === "exclusive" && floor < asked.token) await this.#raise(asked);
    const turn = this.#turns === null ? ALONE : await this.#turn(this.#turns, asked, presence);
    return { admitted: new LetIn(asked, turn, () => this.#check(asked)), end: () => turn.end() };
  }

  /** The floor of a resource. Rejects UNREACHABLE. */
  floor(resource: string): Promise<number> {
    return this.#stored(() => this.store.get(resource), readToken);
  }

  async reset(resource: string): Promise<void> {
    await this.#stored(
      () => this.store.reset(resource),
      () => {},
    );
  }

  async #turn(turns: Turns, asked: Asked, presence: Presence | undefined): Promise<Turn> {
    const turn = await turns.take(asked, presence);
    try {
      await this.#check(asked);
      return turn;
    } catch (error) {
      turn.end();
      throw error;
    }
  }

  async #check({ resource, token }: Asked): Promise<number> {
    const floor = await this.floor(resource);
    if (token < floor) throw stale(resource, token, floor);
    return floor;
  }

  async #raise(asked: Asked): Promise<void> {
    const { resource, token } = asked;
    await this.#permission.toRaise(asked);
    const { ok, floor } = await this.#stored(
      () => this.store.raise(resource, token),
      (raised) => {
        const now = readToken(raised.floor);
        // It may be anybody's store: what it says must fit together before anybody is let in.
        if (now >= token && raised.ok === now <= token) return { ok: raised.ok, floor: now };
        throw new TypeError("the store says that it has not raised the floor");
      },
    );
    if (!ok) throw stale(resource, token, floor);
  }

  /** Asks the store. Whatever goes wrong means that nothing is known, and nobody is let in. */
  #stored<Answer, T>(ask: () => Promise<Answer>, read: (answer: Answer) => T): Promise<T> {
    return within(ask, read, this.#limitMs, "the store of the floors");
  }
}

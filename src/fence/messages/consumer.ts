/**
 * Consumes stamped messages, whatever broker they come from: in order within a key, each once, none of a stale producer.
 *
 * The way of a message: its stamp is read; the key's mark is loaded if it is not known; `Order` says whether it is its turn,
 * or a duplicate, or stale, or must wait; its handler runs; what was handled is put on record; and only then the broker is
 * told that it may forget the message. Messages of one key are handled one after the other, those of different keys side
 * by side.
 *
 * The memory of one consumer is not the last word: while it stood still another one may have taken over. The record is. When
 * it refuses a position, what is in memory of that key is out of date, and is loaded again.
 */
import { FenceError, stale } from "../errors.js";
import type { Floor } from "../fence.js";
import { checkResource } from "../token.js";
import type { MessageContext, Report, Settings } from "./consumer-options.js";
import type { Mark } from "./high-water.js";
import { type Gap, Order } from "./order.js";
import { type Position, type ReceivedHeaders, readStamp, type Stamp } from "./stamp.js";
import { pause, systemTiming, type Timing } from "./timing.js";

/**
 * What is to be told to the broker of a message: `done` that it may forget it, `rejected` that nobody can handle it, and
 * `returned` that somebody else is to get it.
 */
export type Settled = "done" | "rejected" | "returned";

/** Handles a message. It counts as handled when it resolves. */
export type Handler<M, Tx> = (message: M, context: MessageContext<Tx>) => Promise<unknown> | unknown;

interface Delivery<M> {
  readonly stamp: Stamp;
  readonly message: M;
  /** Called once. */
  readonly settle: (settled: Settled) => void;
  /** It is settled, or it waits for missing messages. */
  readonly passed: () => void;
}

/** The messages of one key that have not been offered to the order yet, while somebody works at that key. */
interface Lane<M> {
  readonly inbox: Delivery<M>[];
}

const positionOf = ({ key, token, sequence }: Stamp): Position => ({ key, token, sequence });

export class OrderedConsumer<M, Tx> {
  readonly #handler: Handler<M, Tx>;
  readonly #settings: Settings<Tx>;
  readonly #timing: Timing;
  readonly #order: Order<Delivery<M>>;
  readonly #lanes = new Map<string, Lane<M>>();
  /** Lanes that wait until fewer others are worked at. */
  readonly #turns: (() => void)[] = [];
  #working = 0;
  readonly #ending = new AbortController();
  readonly #failed = Promise.withResolvers?.<never>() ?? withResolvers<never>();
  #cancelTimer: (() => void) | undefined;

  constructor(handler: Handler<M, Tx>, settings: Settings<Tx>, timing: Timing = systemTiming) {
    this.#handler = handler;
    this.#settings = settings;
    this.#timing = timing;
    this.#order = new Order(settings, (gap) => this.#tellGap(gap));
    this.#failed.promise.catch(() => {});
  }
}

function withResolvers<T>() {
  let resolve!: (value: T) => void;
  let reject!: (error: unknown) => void;
  const promise = new Promise<T>((yes, no) => {
    resolve = yes;
    reject = no;
  });
  return { promise, resolve, reject };
}

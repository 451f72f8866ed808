/**
 * What a consumer has handled of each key, on record: the high-water mark, a token and a sequence.
 *
 * Memory is not enough. A consumer that dies between its effect and its ack gets the message again, and so does the one
 * that takes over its partition:
 *
 *     consumer 1 handles (33, 5), commits its effect, and is killed before it acknowledges
 *     consumer 2 gets (33, 5) again               <- nothing but a record tells it that this is a duplicate
 *
 * And the record must be written in the transaction of the effect. Written before it, a crash between the two loses the
 * message; written after it, a crash between the two repeats the effect.
 *
 * A mark never moves backwards, and never stays where it is: `save` of a position that is not beyond the mark is
 * refused. So a consumer that was taken for dead, and is not, cannot repeat what its successor has done, nor slip an
 * older producer's message in behind a newer one's: its transaction finds that out, and is rolled back.
 */
import { FenceError } from "../errors.js";

/** The last message of a key that was handled. */
export interface Mark {
  readonly token: number;
  /** 0: none of this token, but it was seen. */
  readonly sequence: number;
}

/** Where marks are kept. `Tx`: what a handler's transaction is, for the storages that have one. */
export interface HighWater<Tx = unknown> {
  /** The mark of a key; undefined: nothing of it was ever handled. */
  load(key: string): Promise<Mark | undefined>;
  /**
   * Moves the mark of a key to a position, in the transaction if one is given. Resolves to undefined when it is there
   * now, and to the mark in the way when that is not before the position.
   */
  save(key: string, position: Mark, tx?: Tx): Promise<Mark | undefined>;
  /**
   * For a message of a shared hold, which moves nothing: resolves to the mark in the way if its token is higher than
   * this one. In a transaction it must not be able to become higher before the commit.
   */
  check(key: string, token: number, tx?: Tx): Promise<Mark | undefined>;
  /** Forgets the mark of a key. */
  reset(key: string): Promise<void>;
}

/** Whether a mark is in the way of a position: not before it. */
export const inTheWay = (mark: Mark, position: Mark): boolean =>
  mark.token > position.token || (mark.token === position.token && mark.sequence >= position.sequence);

const KEYS_MAX = 100_000;

/**
 * Marks in memory, for tests, and for consumers whose messages mean nothing after a restart. It forgets everything with
 * its process: what is redelivered to the next one is handled again, and where a producer goes on in the middle, the
 * next one waits `gapMs` for its beginning.
 */
export class MemoryHighWater implements HighWater {
  readonly #marks = new Map<string, Mark>();
  readonly #keysMax: number;

  /** `keysMax`: how many keys it remembers; one more is refused with LIMIT. Default: 100,000. */
  constructor({ keysMax = KEYS_MAX }: { readonly keysMax?: number | undefined } = {}) {
    this.#keysMax = keysMax;
  }

  async load(key: string): Promise<Mark | undefined> {
    return this.#marks.get(key);
  }

  async save(key: string, { token, sequence }: Mark): Promise<Mark | undefined> {
    const mark = this.#marks.get(key);
    if (mark && inTheWay(mark, { token, sequence })) return mark;
    // Nothing may be forgotten to make room: what is forgotten is handled twice.
    if (!mark && this.#marks.size >= this.#keysMax) {
      throw new FenceError("LIMIT", `marks of ${this.#keysMax} keys are in memory, and there is no room for more`);
    }
    this.#marks.set(key, { token, sequence });
    return undefined;
  }

  async check(key: string, token: number): Promise<Mark | undefined> {
    const mark = this.#marks.get(key);
    return mark && mark.token > token ? mark : undefined;
  }

  async reset(key: string): Promise<void> {
    this.#marks.delete(key);
  }
}

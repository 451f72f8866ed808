/**
 * Vector clocks: timestamps that tell whether one event can have influenced another, or whether neither knew of the other.
 *
 * A Lamport timestamp respects cause and effect, but cannot be read backwards: of two events without any influence on
 * each other one still has the lower number.
 *
 *     process a:  writes x = 1        Lamport 5      vector a=1
 *     process b:  writes x = 2        Lamport 7      vector b=1
 *
 * By Lamport the second write looks like the later one, and "the last write wins" drops the first without a word. The
 * vectors say that they are concurrent: neither writer has seen the other's value, and somebody has to merge them.
 *
 * A vector has a counter for each process: how many of its events are known. That costs an entry for each process that
 * ever took part, so the number is bounded, and processes should be few and have names that last.
 */
import { type HeaderCarrier, type ReceivedHeaders, readHeader, writeHeader } from "./carrier.js";
import { show } from "./duration.js";
import { invalid, LeaseholdError } from "./errors.js";

/** The header that carries a vector from one process to another. */
export const VECTOR_HEADER = "vector-clock";

/** How many events of each process are known; a process that is not in it has 0. */
export type Vector = Readonly<Record<string, number>>;

/** How one event stands to another: it can have influenced it, can have been influenced by it, is it, or is neither. */
export type VectorOrder = "before" | "after" | "equal" | "concurrent";

export interface VectorClockOptions {
  /** The most processes that it keeps a counter for, from 1 to 1,024. Default: 64. */
  readonly entriesMax?: number | undefined;
  /** What this process knew before it was restarted, as `current()` gave it. */
  readonly from?: Vector | undefined;
}

const ENTRIES_DEFAULT = 64;
const ENTRIES_MAX = 1_024;
const ID_BYTES_MAX = 128;
/** What HTTP and gRPC servers take for one header without being told to. */
const HEADER_BYTES_MAX = 8_192;
const OBJECTIONABLE = /[\p{Cc}\p{Surrogate}]/u;

/**
 * The vector clock of a process.
 *
 * @example
 * const clock = new VectorClock("cart-1");
 * const mine = clock.tick();                        // an event of this process
 * await fetch(url, { headers: clock.inject({}) });  // in the other process: clock.extract(request.headers)
 * if (compareVectors(mine, theirs) === "concurrent") await merge();
 */
export class VectorClock {
  /** The name of this process in vectors. */
  readonly nodeId: string;
  readonly #entriesMax: number;
  #vector: Vector;

  /**
   * `nodeId`: text of 1 to 128 bytes that no other process has at the same time. One that comes back after a restart
   * must continue from what it was (`from`), else its new events are taken for old ones. Throws INVALID, LIMIT.
   */
  constructor(nodeId: string, options: VectorClockOptions = {}) {
    const { entriesMax = ENTRIES_DEFAULT, from = {} } = options;
    if (!Number.isSafeInteger(entriesMax) || entriesMax < 1 || entriesMax > ENTRIES_MAX) {
      throw invalid(`entriesMax must be a whole number from 1 to ${ENTRIES_MAX}, not ${show(entriesMax)}`);
    }
    this.nodeId = checkId(nodeId);
    this.#entriesMax = entriesMax;
    this.#vector = this.#bounded(freeze(entriesOf(from)));
  }

  /** What is known now. Never changes: later events make a new one. */
  current(): Vector {
    return this.#vector;
  }

  /** An event of this process. Returns its vector. Throws INVALID when 2^53 - 1 events have been counted, LIMIT. */
  tick(): Vector {
    this.#vector = this.#ticked(this.#vector);
    return this.#vector;
  }

  /**
   * Takes note of the vector of a received message and returns that of the receipt, which is after both. Throws INVALID,
   * and LIMIT when more processes would be known than `entriesMax`; nothing is taken note of then.
   */
  observe(other: Vector): Vector {
    this.#vector = this.#ticked(mergeVectors(this.#vector, other));
    return this.#vector;
  }

  /**
   * Ticks, and puts the vector into the header `vector-clock` of a message to be sent. Returns the headers. Throws LIMIT
   * when it is longer than 8 KiB; the clock has not ticked then.
   */
  inject<H extends HeaderCarrier>(headers: H): H {
    const next = this.#ticked(this.#vector);
    const text = encodeVector(next);
    this.#vector = next;
    return writeHeader(headers, VECTOR_HEADER, text);
  }

  /**
   * Observes the header of a received message and returns the vector of the receipt; undefined if there is none. Throws
   * INVALID for a header that is no vector, LIMIT.
   */
  extract(headers: ReceivedHeaders): Vector | undefined {
    const text = readHeader(headers, VECTOR_HEADER, HEADER_BYTES_MAX);
    if (text === undefined) return undefined;
    if (text === "")
      throw invalid(`the header ${VECTOR_HEADER} is empty: the vector of a message has an entry at least`);
    return this.observe(decodeVector(text));
  }

  #ticked(vector: Vector): Vector {
    const count = counterOf(vector, this.nodeId);
    if (count === Number.MAX_SAFE_INTEGER) throw invalid(`the counter of ${show(this.nodeId)} is at its end`);
    return this.#bounded(freeze([...Object.entries(vector), [this.nodeId, count + 1]]));
  }

  #bounded(vector: Vector): Vector {
    // A place is kept for this process, which may not have had an event yet.
    const known = Object.keys(vector).length + (Object.hasOwn(vector, this.nodeId) ? 0 : 1);
    if (known <= this.#entriesMax) return vector;
    throw limit(
      `the vector clock would have ${known} processes, and at most ${this.#entriesMax} are permitted (entriesMax): ` +
        "are there new ids with every restart?",
    );
  }
}

const limit = (message: string): LeaseholdError => new LeaseholdError("LIMIT", message, { retryable: false });

/** Without a prototype: an id may be "__proto__". */
function freeze(entries: Iterable<readonly [string, number]>): Vector {
  const vector = Object.create(null) as Record<string, number>;
  for (const [id, count] of entries) vector[id] = count;
  return Object.freeze(vector);
}

const counterOf = (vector: Vector, id: string): number => (Object.hasOwn(vector, id) ? (vector[id] as number) : 0);

function checkId(id: unknown): string {
  if (typeof id !== "string" || id === "") throw invalid(`the id of a process must be text, not ${show(id)}`);
  if (OBJECTIONABLE.test(id)) throw invalid(`the id ${show(id)} has a control character or half a surrogate pair`);
  const bytes = Buffer.byteLength(id);
  if (bytes > ID_BYTES_MAX)
    throw invalid(`the id ${show(id)} has ${bytes} bytes; at most ${ID_BYTES_MAX} are permitted`);
  return id;
}

/** The checked entries of a vector that came from elsewhere; a counter of 0 says nothing and is left out. */
function entriesOf(vector: Vector): [id: string, count: number][] {
  if (typeof vector !== "object" || vector === null || Array.isArray(vector)) {
    throw invalid(`a vector must be an object of counters, not ${show(vector)}`);
  }
  const entries = Object.entries(vector);
  if (entries.length > ENTRIES_MAX) throw limit(`the vector has ${entries.length} entries, more than ${ENTRIES_MAX}`);
  for (const [id, count] of entries) {
    checkId(id);
    if (!Number.isSafeInteger(count) || count < 0) {
      throw invalid(`the counter of ${show(id)} must be a whole number from 0 to 2^53 - 1, not ${show(count)}`);
    }
  }
  return entries.filter(([, count]) => count > 0);
}

/**
 * How the event with the vector `a` stands to the one with `b`. "before": `a` can have influenced `b`. "concurrent":
 * neither knew of the other. Throws INVALID.
 *
 * @example
 * compareVectors({ a: 1 }, { a: 2, b: 1 }); // "before"
 * compareVectors({ a: 1 }, { b: 1 });       // "concurrent"
 */
export function compareVectors(a: Vector, b: Vector): VectorOrder {
  const [ofA, ofB] = [entriesOf(a), entriesOf(b)];
  const below = ofA.every(([id, count]) => count <= counterOf(b, id));
  const above = ofB.every(([id, count]) => count <= counterOf(a, id));
  if (below) return above ? "equal" : "before";
  return above ? "after" : "concurrent";
}

/** What is known by whoever knows both: the higher counter of each process. Throws INVALID, LIMIT. */
export function mergeVectors(a: Vector, b: Vector): Vector {
  const merged = new Map(entriesOf(a));
  for (const [id, count] of entriesOf(b)) merged.set(id, Math.max(count, merged.get(id) ?? 0));
  return freeze(merged);
}

/**
 * A vector as text, the same for equal vectors: `a=3,b=7`, sorted, ids percent-encoded. Throws INVALID, and LIMIT when it
 * is longer than 8 KiB.
 */
export function encodeVector(vector: Vector): string {
  const parts = entriesOf(vector).map(([id, count]) => [encodeURIComponent(id), count] as const);
  parts.sort(([a], [b]) => (a < b ? -1 : 1));
  const text = parts.map(([id, count]) => `${id}=${count}`).join(",");
  if (text.length <= HEADER_BYTES_MAX) return text;
  throw limit(`the vector is ${text.length} bytes long as text, and at most ${HEADER_BYTES_MAX} are permitted`);
}

/** The vector that a text from `encodeVector` stands for. Throws INVALID for every other text. */
export function decodeVector(text: string): Vector {
  if (typeof text !== "string" || text.length > HEADER_BYTES_MAX) throw invalid(`${show(text)} is no vector`);
  if (text === "") return freeze([]);
  const entries = text.split(",").map((part): [string, number] => {
    const [, id, digits] = /^([^=]+)=([1-9]\d{0,15})$/.exec(part) ?? [];
    if (id === undefined) throw invalid(`${show(part)} is no entry of a vector, such as a=3`);
    return [decodeId(id), Number(digits)];
  });
  const vector = freeze(entries);
  // One text for one vector: no doubles, no other order, no other spelling of an id.
  if (encodeVector(vector) !== text)
    throw invalid(`${show(text)} is no vector: ids are sorted, and each is there once`);
  return vector;
}

function decodeId(encoded: string): string {
  try {
    return decodeURIComponent(encoded);
  } catch {
    throw invalid(`${show(encoded)} is no percent-encoded id`);
  }
}

/**
 * The storage seam.
 *
 * The core's durable state is a set of entries: a text key and a text value. Every batch of commands yields one list
 * of mutations; `append` makes that list durable, whole or not at all. At start `open` gives back exactly the entries
 * that result from all acknowledged appends, in order.
 *
 * Every store that implements this interface passes the one suite in `test/journal/conformance.ts`.
 *
 * A failed append means "outcome unknown": the record may or may not be found at the next `open`. After one failure a
 * journal refuses every further append; the caller closes it, opens a new one and rebuilds its state from that.
 */

/**
 * Mutations as a flat list, key and value in turn: `[key0, value0, key1, value1, …]`; a `null` value deletes the key,
 * also when there is none. Later pairs win over earlier ones. Flat, because a busy server makes hundreds of thousands
 * of them a second. Keys are not empty; values may be. Both are well-formed Unicode without control characters (below
 * U+0020): the journal relies on it and does not look. The list may be empty: a record that only proves that the store
 * still takes writes. The caller leaves the list alone until `append` has settled.
 */
export type Mutations = readonly (string | null)[];

/** What `open` found. */
export interface Recovery {
  /** Random identity of the store, 32 hexadecimal digits, made when the store was created and never changed. */
  readonly clusterId: string;
  /** All live entries. The caller owns the map afterwards. */
  readonly entries: Map<string, string>;
  /** How many log records lay behind the checkpoint. */
  readonly replayedRecords: number;
}

/** Sizes for metrics and `Status`. */
export interface JournalStats {
  /** Bytes handed to the store since `open`, log records and checkpoints. */
  readonly writtenBytes: number;
  /** Bytes of log records that no checkpoint has folded yet. */
  readonly logBytes: number;
  /** Log records that no checkpoint has folded yet. */
  readonly checkpointLagRecords: number;
}

/** A key and its value. */
export type Entry = readonly [key: string, value: string];

/**
 * All live entries as they were at one moment: after record `seq`, and before every later one. It costs the store
 * something while it is open: close it.
 */
export interface JournalSnapshot {
  readonly clusterId: string;
  /** The last record that is in it, counted from the creation of the store. */
  readonly seq: number;
  /**
   * The entries, each once and in any order, in slices that take a few milliseconds at most; the event loop turns between
   * two of them. To be gone through once. Rejects with `JournalCorruptError` when the store does not hold what was
   * written, and when the snapshot or the journal is closed.
   */
  slices(): AsyncIterable<readonly Entry[]>;
  /** Safe to call twice, and while slices are read; never rejects. */
  close(): Promise<void>;
}

/** Receives measurements; every method is optional and must not throw. */
export interface JournalObserver {
  /** A checkpoint step became durable. `seconds` is the duration of the write that carried it. */
  checkpoint?(seconds: number): void;
  /** A store operation failed. */
  error?(operation: "append" | "checkpoint" | "open" | "close", error: unknown): void;
}

export interface Journal {
  readonly store: string;
  /** Recovers. Called once, before anything else. Throws `JournalCorruptError`, naming what is damaged. */
  open(): Promise<Recovery>;
  /**
   * Makes the mutations durable as one record. At most one append may be in flight: a second one is refused, and the
   * first is not disturbed by it. Any other rejection means "outcome unknown", and every later append is refused.
   */
  append(mutations: Mutations): Promise<void>;
  /** What is durable now, while appends go on. Rejects while the journal is not open, or has failed. */
  snapshot(): Promise<JournalSnapshot>;
  stats(): JournalStats;
  /** Waits for work in flight and closes the store. Safe to call twice and after a failure; never rejects. */
  close(): Promise<void>;
}

/** The stored bytes are not what was written. `message` names the file, key or sequence number. */
export class JournalCorruptError extends Error {
  override readonly name = "JournalCorruptError";
}

/** Why a store cannot be used, although nothing in it is known to be damaged. */
export type JournalRefusal =
  | "in_use"
  | "not_a_directory"
  | "not_writable"
  | "foreign"
  | "newer_format"
  | "disk_full"
  | "not_empty"
  | "half_restored";

/** The store cannot be opened. `message` is one line for the operator. */
export class JournalRefusedError extends Error {
  override readonly name = "JournalRefusedError";
  readonly reason: JournalRefusal;

  constructor(reason: JournalRefusal, message: string, options?: ErrorOptions) {
    super(message, options);
    this.reason = reason;
  }
}

/**
 * Histories: what clients asked for and what they were told, as data. `leasehold verify` checks them; `recordHistory`
 * makes them.
 *
 * An operation is two events, its call (`invoke`) and its result, with the same process and id. Looking at what is known
 * already (`refresh`, `tick`, `observe`) is one event, its result, stamped before the look.
 */

/** The mode of a lock that is asked for. */
export type HistoryMode = "exclusive" | "shared" | "semaphore";

export interface HistoryLock {
  readonly name: string;
  readonly mode: HistoryMode;
  /** Semaphores: how many permits are taken (default 1), of how many. */
  readonly permits?: number;
  readonly limit?: number;
}

export interface HistoryGrant {
  readonly token: number;
  /** The Lamport timestamp of the grant. */
  readonly timestamp?: number;
  /** Semaphores: which permits. */
  readonly slots?: readonly number[];
}

/** One event without its stamp. */
export type HistoryEntry =
  | { readonly op: "acquire"; readonly type: "invoke"; readonly locks: readonly HistoryLock[] }
  /** The grants are in the order of the locks. */
  | { readonly op: "acquire"; readonly type: "ok"; readonly grants: readonly HistoryGrant[] }
  | { readonly op: "release" | "downgrade"; readonly type: "invoke"; readonly name: string; readonly token: number }
  | {
      readonly op: "transfer";
      readonly type: "invoke";
      readonly name: string;
      readonly token: number;
      readonly ticket: string;
    }
  | { readonly op: "range"; readonly type: "invoke"; readonly count: number }
  | { readonly op: "range"; readonly type: "ok"; readonly first: number; readonly last: number }
  /** A write to a storage that has a fence. `ok`: it was accepted; `fail`: it was refused. */
  | { readonly op: "write"; readonly type: "invoke"; readonly resource: string; readonly token: number }
  | { readonly op: "release" | "transfer" | "downgrade" | "write"; readonly type: "ok" }
  /** `fail`: it did not happen; `unknown`: it may have. */
  | {
      readonly op: "acquire" | "release" | "transfer" | "downgrade" | "range" | "write";
      readonly type: "fail" | "unknown";
      readonly error?: string;
    }
  /** Whether the lock is believed to be held. */
  | { readonly op: "refresh"; readonly type: "ok" | "fail"; readonly name: string; readonly token: number }
  /** A timestamp that the process made itself. */
  | { readonly op: "tick"; readonly type: "ok"; readonly timestamp: number }
  /** The leader that an observer was told of; all that one observer was told has the same id. */
  | { readonly op: "observe"; readonly type: "ok"; readonly name: string; readonly token: number };

/** One event: one line of a history. */
export type HistoryEvent = HistoryEntry & {
  /** Who: different for every client in every process. */
  readonly process: string;
  /** When, in nanoseconds of a monotonic clock that all processes of the machine share. */
  readonly ns: number;
  /** Which of the process's operations. */
  readonly id: number;
};

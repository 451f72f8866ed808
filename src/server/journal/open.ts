/** From the text of `--store` to a journal. */
import type { Journal } from "./journal.js";
import { LevelJournal, type LevelJournalOptions } from "./level.js";
import { MemoryJournal } from "./memory.js";

export type StoreSpec = { readonly kind: "level"; readonly directory: string } | { readonly kind: "memory" };

export type ParsedStore =
  | { readonly ok: true; readonly store: StoreSpec }
  /** `error` is one line for the person who typed it. */
  | { readonly ok: false; readonly error: string };

const KNOWN = "known stores are level:DIRECTORY and memory:";

/** Parses `level:./leasehold-data` or `memory:`. */
export function parseStore(text: string): ParsedStore {
  const colon = text.indexOf(":");
  const kind = colon < 0 ? text : text.slice(0, colon);
  const rest = colon < 0 ? "" : text.slice(colon + 1);
  if (kind === "level") {
    if (rest === "") return { ok: false, error: 'store "level" needs a directory, as in level:./leasehold-data' };
    // A NUL would end the path early for LevelDB, but not for the rest of the program.
    if (rest.includes("\0")) return { ok: false, error: "the directory of the store contains a NUL character" };
    return { ok: true, store: { kind: "level", directory: rest } };
  }
  if (kind === "memory") {
    if (rest !== "") return { ok: false, error: `store "memory" takes nothing after the colon, not "${rest}"` };
    return { ok: true, store: { kind: "memory" } };
  }
  return { ok: false, error: `unknown store "${text}": ${KNOWN}` };
}

/** Constructs the journal; it is not open yet. The options are those of the store on disk; `memory` has none. */
export function createJournal(store: StoreSpec, options: LevelJournalOptions = {}): Journal {
  return store.kind === "memory" ? new MemoryJournal() : new LevelJournal(store.directory, options);
}

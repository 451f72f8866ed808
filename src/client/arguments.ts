/** Checks of what callers pass in. Each throws INVALID. */
import { hostname } from "node:os";
import { show } from "./duration.js";
import { invalid } from "./errors.js";

const NAME_BYTES_MAX = 512;
const OWNER_BYTES_MAX = 256;
const METADATA_BYTES_MAX = 4_096;

/** What nearly every name looks like: at most one byte a character, nothing to object to. */
const PLAIN = /^[ -~]{1,256}$/;
const OBJECTIONABLE = /[\p{Cc}\p{Surrogate}]/u;

function checkText(value: unknown, what: string, bytesMax: number): string {
  if (typeof value !== "string") throw invalid(`${what} must be text, not ${show(value)}`);
  if (PLAIN.test(value)) return value;
  if (OBJECTIONABLE.test(value)) {
    throw invalid(`${what} ${show(value)} contains a control character or half a surrogate pair`);
  }
  const length = Buffer.byteLength(value);
  if (length > bytesMax) throw invalid(`${what} is ${length} bytes long; at most ${bytesMax} are permitted`);
  return value;
}

export function checkName(name: unknown): string {
  if (name === "") throw invalid("the name of a lock must not be empty");
  return checkText(name, "the name", NAME_BYTES_MAX);
}

export const checkPrefix = (prefix: unknown): string => checkText(prefix, "the prefix", NAME_BYTES_MAX);

export const checkOwner = (owner: unknown): string => checkText(owner, "the owner", OWNER_BYTES_MAX);

const TICKET_BYTES_MAX = 128;

export function checkTicketId(ticketId: unknown): string {
  if (ticketId === "") throw invalid("the ticket id must not be empty");
  return checkText(ticketId, "the ticket id", TICKET_BYTES_MAX);
}

/** Copies it: what the caller does to its buffer afterwards changes nothing. */
export function checkMetadata(metadata: unknown): Uint8Array {
  if (typeof metadata !== "string" && !(metadata instanceof Uint8Array)) {
    throw invalid(`the metadata must be text or bytes, not ${show(metadata)}`);
  }
  const copy = typeof metadata === "string" ? Buffer.from(metadata, "utf8") : Buffer.from(metadata);
  if (copy.length > METADATA_BYTES_MAX) {
    throw invalid(`the metadata is ${copy.length} bytes long; at most ${METADATA_BYTES_MAX} are permitted`);
  }
  return copy;
}

/** Tokens and timestamps: exact in a `number`. */
export function checkInteger(value: unknown, what: string): number {
  if (typeof value === "number" && Number.isSafeInteger(value) && value >= 0) return value;
  throw invalid(`${what} must be a whole number from 0 to 2^53 - 1, not ${show(value)}`);
}

/** A whole number of something, at least one. */
export function checkPositive(value: unknown, what: string, max: number): number {
  if (typeof value === "number" && Number.isSafeInteger(value) && value >= 1 && value <= max) return value;
  throw invalid(`${what} must be a whole number from 1 to ${max}, not ${show(value)}`);
}

export function checkSignal(signal: unknown): AbortSignal {
  if (signal instanceof AbortSignal) return signal;
  throw invalid(`the signal must be an AbortSignal, not ${show(signal)}`);
}

export function checkFunction(f: unknown, what: string): void {
  if (typeof f !== "function") throw invalid(`${what} must be a function, not ${show(f)}`);
}

/** Options must be an object of known keys: a misspelt `wiat` must not silently mean the default. */
export function checkKeys(options: unknown, known: readonly string[], what: string): void {
  if (typeof options !== "object" || options === null) throw invalid(`${what} must be an object, not ${show(options)}`);
  for (const key of Object.keys(options)) {
    if (known.includes(key)) continue;
    throw invalid(`${what} have no ${show(key)}; did you mean ${show(nearest(key, known))}?`);
  }
}

/** The known word that takes the fewest edits to reach. */
export function nearest(word: string, known: readonly string[]): string {
  const wanted = word.slice(0, 64).toLowerCase();
  let best = known[0] ?? "";
  let bestEdits = Number.POSITIVE_INFINITY;
  for (const candidate of known) {
    const edits = editsBetween(wanted, candidate.toLowerCase());
    if (edits < bestEdits) [best, bestEdits] = [candidate, edits];
  }
  return best;
}

/** Insertions, deletions, substitutions, and swaps of neighbours. */
function editsBetween(a: string, b: string): number {
  let before: number[] = [];
  let last = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const row = [i];
    for (let j = 1; j <= b.length; j++) {
      const substituted = (last[j - 1] ?? 0) + (a[i - 1] === b[j - 1] ? 0 : 1);
      const swapped = a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1] ? (before[j - 2] ?? 0) + 1 : substituted;
      row.push(Math.min((last[j] ?? 0) + 1, (row[j - 1] ?? 0) + 1, substituted, swapped));
    }
    before = last;
    last = row;
  }
  return last[b.length] ?? 0;
}

/** Who this process is, for people: "hostname/pid". */
export function defaultOwner(): string {
  const host = hostname().replace(new RegExp(OBJECTIONABLE, "gu"), "").slice(0, 64);
  return `${host || "unknown"}/${process.pid}`;
}

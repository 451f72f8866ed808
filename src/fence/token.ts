/** Checks of tokens and names at the border of the fence kit, before anything is sent. */
import { invalid, show } from "./errors.js";

/** The highest token: 2^53 - 1, exact in a JavaScript number, in a `bigint` column and in text. */
export const TOKEN_MAX = Number.MAX_SAFE_INTEGER;
/** The longest resource: the longest lock name, and a slot. */
const RESOURCE_BYTES_MAX = 512 + "#2147483647".length;
const OBJECTIONABLE = /[\p{Cc}\p{Surrogate}]/u;

/** A token of a grant. Throws INVALID for everything that is not a whole number from 0 to 2^53 - 1. */
export function checkToken(token: unknown): number {
  if (typeof token === "number" && Number.isSafeInteger(token) && token >= 0) return token;
  throw invalid(`a token must be a whole number from 0 to 2^53 - 1, not ${show(token)}`);
}

/**
 * A token that a storage or a message returned: a number, or the digits of one, as drivers give 64-bit integers. Throws
 * INVALID for anything else: a floor that cannot be read must not count as zero.
 */
export function readToken(value: unknown): number {
  if (typeof value === "string" && /^\d{1,16}$/.test(value)) return checkToken(Number(value));
  if (typeof value === "bigint") return checkToken(Number(value));
  return checkToken(value);
}

/** The name of what is fenced: text of 1 to 523 bytes without control characters, as lock names are. Throws INVALID. */
export function checkResource(resource: unknown): string {
  if (typeof resource !== "string" || resource === "") {
    throw invalid(`a resource must be text and not empty, not ${show(resource)}`);
  }
  if (OBJECTIONABLE.test(resource)) {
    throw invalid(`the resource ${show(resource)} contains a control character or half a surrogate pair`);
  }
  const bytes = Buffer.byteLength(resource);
  if (bytes > RESOURCE_BYTES_MAX) {
    throw invalid(`the resource is ${bytes} bytes long; at most ${RESOURCE_BYTES_MAX} are permitted`);
  }
  return resource;
}

/** Throws INVALID unless it is an object without unknown keys: a misspelt option must not silently mean the default. */
export function checkKeys(options: unknown, known: readonly string[], what: string): void {
  if (typeof options !== "object" || options === null) throw invalid(`${what} must be an object, not ${show(options)}`);
  for (const key of Object.keys(options)) {
    if (!known.includes(key)) throw invalid(`${what} have no ${show(key)}; there are ${known.join(", ")}`);
  }
}

/** A whole number of milliseconds or of things from `min` to `max`. Throws INVALID. */
export function checkWhole(value: unknown, what: string, min: number, max: number): number {
  if (typeof value === "number" && Number.isSafeInteger(value) && value >= min && value <= max) return value;
  throw invalid(`${what} must be a whole number from ${min} to ${max}, not ${show(value)}`);
}

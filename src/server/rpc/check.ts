/**
 * Checks of single fields. Each returns null for a good value, else a refusal that names the field, the limit and what
 * was given. The good path allocates nothing: these run for every command of every session.
 */
import type { CoreLimits, Reason, Refusal } from "../core/types.js";

export function refuse(reason: Reason, message: string): Refusal {
  return { kind: "refused", reason, message };
}

export function invalid(message: string): Refusal {
  return refuse("INVALID", message);
}

/** A text that must not be empty: the name of a lock, an id. */
export function badText(field: string, value: string, bytesMax: number): Refusal | null {
  if (value.length === 0) return invalid(`${field} must not be empty`);
  return badOptionalText(field, value, bytesMax);
}

/** A text that may be empty: an owner, a prefix. */
export function badOptionalText(field: string, value: string, bytesMax: number): Refusal | null {
  const length = value.length;
  // One UTF-16 unit is one to three bytes of UTF-8, so most texts need no exact count.
  if (length * 3 > bytesMax) {
    const bytes = Buffer.byteLength(value);
    if (bytes > bytesMax) return invalid(`${field} has ${bytes} bytes of UTF-8; at most ${bytesMax} are allowed`);
  }
  for (let i = 0; i < length; i++) {
    const unit = value.charCodeAt(i);
    if (unit < 0x20 || unit === 0x7f) return controlCharacter(field, unit, i);
  }
  return null;
}

function controlCharacter(field: string, unit: number, index: number): Refusal {
  const code = unit.toString(16).toUpperCase().padStart(4, "0");
  return invalid(`${field} contains the control character U+${code} at index ${index}; none is allowed`);
}

export function badBytes(field: string, value: Uint8Array, bytesMax: number): Refusal | null {
  if (value.length <= bytesMax) return null;
  return invalid(`${field} has ${value.length} bytes; at most ${bytesMax} are allowed`);
}

/** An integer in a closed range. The codec has already refused what is no safe integer. */
export function badRange(field: string, value: number, min: number, max: number): Refusal | null {
  if (Number.isSafeInteger(value) && value >= min && value <= max) return null;
  return invalid(`${field} must be ${min} to ${max}; given: ${value}`);
}

/** A fencing token or a sequence number. */
export function badPositive(field: string, value: number): Refusal | null {
  if (Number.isSafeInteger(value) && value >= 1) return null;
  return invalid(`${field} must be at least 1; given: ${value}`);
}

export function badTtl(field: string, ttlMs: number, limits: CoreLimits): Refusal | null {
  return badRange(field, ttlMs, limits.ttlMsMin, limits.ttlMsMax);
}

/** Metadata travels as bytes and is kept as base64. */
export function toBase64(bytes: Uint8Array): string {
  if (bytes.length === 0) return "";
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString("base64");
}

/** The opaque form of the last entry of a page. */
export function pageToken(last: string): string {
  return last === "" ? "" : Buffer.from(last, "utf8").toString("base64url");
}

/** What `pageToken` was made of, or null for a text that it never made. */
export function readPageToken(token: string, bytesMax: number): string | null {
  if (token.length > Math.ceil((bytesMax * 4) / 3)) return null;
  const last = Buffer.from(token, "base64url").toString("utf8");
  if (pageToken(last) !== token) return null;
  return badOptionalText("page_token", last, bytesMax) === null ? last : null;
}

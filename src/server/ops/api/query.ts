/** What is in the query of a request. A parameter that is not known is refused: a typing error would pass unnoticed. */
import type { Refusal } from "../../core/types.js";
import { badOptionalText, badRange, invalid } from "../../rpc/check.js";

/** Null: all parameters are known and none is there twice. */
export function badParameters(query: URLSearchParams, known: readonly string[]): Refusal | null {
  const seen = new Set<string>();
  for (const key of query.keys()) {
    if (!known.includes(key)) return invalid(`there is no parameter "${key.slice(0, 50)}" here`);
    if (seen.has(key)) return invalid(`the parameter "${key}" is given twice`);
    seen.add(key);
  }
  return null;
}

export interface Page {
  readonly prefix: string;
  readonly after: string;
  readonly limit: number;
}

/** `prefix`, `after` and `limit`, as far as they are there. */
export function readPage(
  query: URLSearchParams,
  bytesMax: number,
  limitDefault: number,
  limitMax: number,
): Page | Refusal {
  const prefix = query.get("prefix") ?? "";
  const after = query.get("after") ?? "";
  const limit = readLimit(query, limitDefault);
  const bad =
    badOptionalText("prefix", prefix, bytesMax) ??
    badOptionalText("after", after, bytesMax) ??
    badRange("limit", limit, 1, limitMax);
  return bad ?? { prefix, after, limit };
}

/** NaN: it is no number. */
export function readLimit(query: URLSearchParams, fallback: number): number {
  const text = query.get("limit");
  if (text === null) return fallback;
  return /^\d{1,9}$/.test(text) ? Number(text) : Number.NaN;
}

/** The options of a cache, and their checks. */
import { invalid, show } from "../errors.js";
import { checkKeys, checkWhole } from "../token.js";
import type { Times } from "./store.js";

export const DAY_MS = 86_400_000;
const OPTIONS = [
  ...["prefix", "ttlMs", "staleMs", "fillMs", "waitMs", "markMs", "positionMs", "timeoutMs"],
  ...["valueBytesMax", "encode", "decode", "onError"],
];

export interface FencedCacheOptions {
  /** What all keys in Redis begin with, without `{`. Default: `leasehold:cache:`. */
  readonly prefix?: string | undefined;
  /** How long a value is served. In milliseconds. */
  readonly ttlMs: number;
  /** How long a value that was marked as stale may be served to those who accept it. Default: `markMs`. */
  readonly staleMs?: number | undefined;
  /** How long a caller may take to load a value; after that another one may. In milliseconds, default 10,000. */
  readonly fillMs?: number | undefined;
  /** How long to wait for another's fill before loading without filling. In milliseconds, default 1,000. */
  readonly waitMs?: number | undefined;
  /** How long a mark of a writer that crashed is kept; a commit must not take longer. In milliseconds, default 30,000. */
  readonly markMs?: number | undefined;
  /** How long positions are kept: longer than a replica of the source may lag. In milliseconds, default 600,000. */
  readonly positionMs?: number | undefined;
  /** How long an answer of Redis may take. In milliseconds, default 1,000. */
  readonly timeoutMs?: number | undefined;
  /** The longest value, encoded; a longer one is not kept. In bytes, default 1 MiB. */
  readonly valueBytesMax?: number | undefined;
  /** Default: JSON. */
  readonly encode?: ((value: unknown) => string) | undefined;
  readonly decode?: ((text: string) => unknown) | undefined;
  /** Told what did not stop a call: Redis did not answer, so that the source was asked; a value was too long. */
  readonly onError?: ((error: unknown) => void) | undefined;
}

/** The options, checked and whole. */
export interface Settings {
  readonly prefix: string;
  readonly times: Times;
  readonly waitMs: number;
  readonly valueBytesMax: number;
  readonly encode: (value: unknown) => string;
  readonly decode: (text: string) => unknown;
  readonly onError: (error: unknown) => void;
}

/** Throws INVALID. */
export function checkOptions(options: FencedCacheOptions): Settings {
  checkKeys(options, OPTIONS, "the options of a cache");
  const { prefix = "leasehold:cache:", valueBytesMax = 2 ** 20, waitMs = 1_000 } = options;
  if (typeof prefix !== "string" || prefix.length > 256 || prefix.includes("{")) {
    throw invalid(`the prefix must be text of at most 256 characters without "{", not ${show(prefix)}`);
  }
  return {
    prefix,
    times: checkTimes(options),
    waitMs: checkWhole(waitMs, "waitMs", 0, DAY_MS),
    valueBytesMax: checkWhole(valueBytesMax, "valueBytesMax", 1, 2 ** 29),
    encode: functionOr(options.encode, JSON.stringify, "encode"),
    decode: functionOr(options.decode, JSON.parse, "decode"),
    onError: functionOr(options.onError, () => {}, "onError"),
  };
}

function checkTimes(options: FencedCacheOptions): Times {
  const {
    ttlMs,
    fillMs = 10_000,
    markMs = 30_000,
    staleMs = markMs,
    positionMs = 600_000,
    timeoutMs = 1_000,
  } = options;
  return {
    ttlMs: checkWhole(ttlMs, "ttlMs", 1, 365 * DAY_MS),
    fillMs: checkWhole(fillMs, "fillMs", 1, DAY_MS),
    markMs: checkWhole(markMs, "markMs", 1, DAY_MS),
    staleMs: checkWhole(staleMs, "staleMs", 1, 365 * DAY_MS),
    positionMs: checkWhole(positionMs, "positionMs", 1, 365 * DAY_MS),
    timeoutMs: checkWhole(timeoutMs, "timeoutMs", 1, DAY_MS),
  };
}

function functionOr<F extends (...args: never[]) => unknown>(given: F | undefined, otherwise: F, name: string): F {
  if (given === undefined) return otherwise;
  if (typeof given === "function") return given;
  throw invalid(`${name} must be a function, not ${show(given)}`);
}

/**
 * The building blocks of the configuration schema: one zod schema an option, which takes the value as it comes (text
 * from a flag or the environment, text or a number from a file) and yields the value that the server uses. What a
 * wrong value gets is part of the sentence `<option>: <value> is not …`.
 */
import { z } from "zod";
import { parseStore } from "../journal/open.js";
import { formatEndpoint, parseEndpoint } from "./endpoint.js";
import { formatBytes, formatDurationMs, parseBytes, parseDurationMs } from "./units.js";

/** What help texts and printed configurations need to know about an option beside its description. */
export interface OptionInfo {
  /** What stands for the value in a help text; "" for a switch. */
  readonly argument: string;
  /** The value as a person would write it in a file. */
  readonly show: (value: unknown) => string | number | boolean;
}

export const optionInfo = z.registry<OptionInfo>();

/** What is wrong: the rest of "<value> is …", or a sentence that names the value itself. */
type Parsed<T> = { readonly value: T } | { readonly problem: string } | { readonly sentence: string };

function option<T>(fallback: T, description: string, info: OptionInfo, parse: (raw: unknown) => Parsed<T>) {
  const schema = z.unknown().transform((raw, context): T => {
    const parsed = parse(raw);
    if ("value" in parsed) return parsed.value;
    const message = "sentence" in parsed ? parsed.sentence : `${quote(raw)} is ${parsed.problem}`;
    context.issues.push({ code: "custom", message, input: raw });
    return z.NEVER;
  });
  return schema.prefault(fallback).describe(description).register(optionInfo, info);
}

/** A value in a one-line message, cut when it is long. */
function quote(raw: unknown): string {
  const text = JSON.stringify(raw) ?? String(raw);
  return text.length > 80 ? `${text.slice(0, 77)}...` : text;
}

const same = (value: unknown) => value as string | number | boolean;

export function toggle(fallback: boolean, description: string) {
  return option(fallback, description, { argument: "", show: same }, (raw) => {
    if (raw === true || raw === "true" || raw === "1") return { value: true };
    if (raw === false || raw === "false" || raw === "0") return { value: false };
    return { problem: "not true or false" };
  });
}

export function choice<const T extends string>(
  values: readonly T[],
  fallback: T,
  description: string,
  argument = "<level>",
) {
  return option<T>(fallback, description, { argument, show: same }, (raw) => {
    const value = values.find((known) => known === raw);
    return value === undefined ? { problem: `not one of ${values.join(", ")}` } : { value };
  });
}

export function endpoint(fallback: string, description: string, extra?: "none") {
  const info = { argument: "<host:port>", show: same };
  return option(fallback, description, info, (raw) => {
    if (extra !== undefined && raw === extra) return { value: extra };
    const parsed = typeof raw === "string" ? parseEndpoint(raw) : undefined;
    if (parsed) return { value: formatEndpoint(parsed) };
    const hint =
      typeof raw === "string" && raw.startsWith("unix:") ? "not unix:PATH (107 bytes at most)" : "not host:port";
    return { problem: extra === undefined ? hint : `${hint} and not "${extra}"` };
  });
}

/** A file; "" for none. It is opened by whoever needs it. */
export function path(description: string, extra: readonly string[] = [], fallback = "") {
  return option(fallback, description, { argument: "<file>", show: same }, (raw) => {
    if (typeof raw !== "string") return { problem: "not the name of a file" };
    if (raw.includes("\0")) return { problem: "not the name of a file: it contains a NUL character" };
    return { value: extra.includes(raw) ? raw : raw.trim() };
  });
}

/** Any text of up to 1,024 characters; "" for none. */
export function text(fallback: string, description: string) {
  return option(fallback, description, { argument: "<text>", show: same }, (raw) =>
    typeof raw === "string" && raw.length <= 1_024 && !/\p{Cc}/u.test(raw)
      ? { value: raw }
      : { problem: "not a text of at most 1024 characters without control characters" },
  );
}

export function store(fallback: string, description: string) {
  return option(fallback, description, { argument: "<store>", show: same }, (raw) => {
    if (typeof raw !== "string") return { problem: "not a store such as level:PATH or memory:" };
    const parsed = parseStore(raw);
    return parsed.ok ? { value: raw } : { sentence: parsed.error };
  });
}

const within = (
  value: number | undefined,
  min: number,
  max: number,
  what: string,
  show: (n: number) => string | number,
) =>
  value === undefined
    ? { problem: `not ${what}` }
    : value < min || value > max
      ? { problem: `not between ${show(min)} and ${show(max)}` }
      : { value };

/** Longer than this, a Node timer would fire at once. */
const DURATION_MS_MAX = 24 * 86_400_000;

/** In milliseconds. */
export function duration(fallbackMs: number, minMs: number, description: string, maxMs = DURATION_MS_MAX) {
  const show = (value: unknown) => formatDurationMs(value as number);
  return option(fallbackMs, description, { argument: "<duration>", show }, (raw) =>
    within(parseDurationMs(raw), minMs, maxMs, 'a duration ("15s", or milliseconds)', formatDurationMs),
  );
}

/** In bytes. */
export function bytes(fallback: number, min: number, max: number, description: string) {
  const show = (value: unknown) => formatBytes(value as number);
  return option(fallback, description, { argument: "<size>", show }, (raw) =>
    within(parseBytes(raw), min, max, 'a size ("64KiB", or bytes)', formatBytes),
  );
}

export function count(fallback: number, min: number, max: number, description: string) {
  return option(fallback, description, { argument: "<n>", show: same }, (raw) => {
    const value = typeof raw === "string" && /^\d{1,15}$/.test(raw.trim()) ? Number(raw) : raw;
    const whole = typeof value === "number" && Number.isSafeInteger(value) && value >= 0 ? value : undefined;
    return within(whole, min, max, "a whole number", (n) => n);
  });
}

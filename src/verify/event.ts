/** Lines of a history: what is well-formed. Fields that are not known are left alone, they may be notes. */
import type { HistoryEvent } from "@leasehold/client";

type Check = (value: unknown) => boolean;

const whole: Check = (value) => Number.isSafeInteger(value) && (value as number) >= 0;
const positive: Check = (value) => whole(value) && value !== 0;
const text: Check = (value) => typeof value === "string";
const someText: Check = (value) => text(value) && value !== "";
const optional =
  (check: Check): Check =>
  (value) =>
    value === undefined || check(value);
const oneOf =
  (...values: readonly unknown[]): Check =>
  (value) =>
    values.includes(value);
const listOf =
  (check: Check): Check =>
  (value) =>
    Array.isArray(value) && value.every(check);
const record =
  (fields: Readonly<Record<string, Check>>): Check =>
  (value) =>
    typeof value === "object" && value !== null && wrongField(value, fields) === undefined;

/** The first field that is missing or wrong. */
function wrongField(value: object, fields: Readonly<Record<string, Check>>): string | undefined {
  for (const name in fields) {
    if (!fields[name]?.((value as Readonly<Record<string, unknown>>)[name])) return name;
  }
  return undefined;
}

const stamp = { process: someText, ns: (value: unknown) => Number.isFinite(value), id: whole };
const hold = { name: someText, token: positive };
const lock = record({
  name: text,
  mode: oneOf("exclusive", "shared", "semaphore"),
  permits: optional(positive),
  limit: optional(positive),
});
const grant = record({ token: positive, timestamp: optional(whole), slots: optional(listOf(whole)) });
const refused = { error: optional(text) };

/** What an event has besides its stamp, by operation and type. */
const shapes: Readonly<Record<string, Readonly<Record<string, Readonly<Record<string, Check>>>>>> = {
  acquire: { invoke: { locks: listOf(lock) }, ok: { grants: listOf(grant) }, fail: refused, unknown: refused },
  release: { invoke: hold, ok: {}, fail: refused, unknown: refused },
  downgrade: { invoke: hold, ok: {}, fail: refused, unknown: refused },
  transfer: { invoke: { ...hold, ticket: text }, ok: {}, fail: refused, unknown: refused },
  range: { invoke: { count: positive }, ok: { first: whole, last: whole }, fail: refused, unknown: refused },
  write: { invoke: { resource: someText, token: positive }, ok: {}, fail: refused, unknown: refused },
  refresh: { ok: hold, fail: hold },
  tick: { ok: { timestamp: whole } },
  observe: { ok: hold },
};

/** Reads one line. Returns what is wrong with it, as text, if anything is. */
export function parseEvent(line: string): HistoryEvent | string {
  let value: Readonly<Record<string, unknown>>;
  try {
    value = JSON.parse(line) as typeof value;
  } catch {
    return "is no JSON";
  }
  if (typeof value !== "object" || value === null) return "is no event";
  const { op, type } = value;
  const types = typeof op === "string" && Object.hasOwn(shapes, op) ? shapes[op] : undefined;
  if (!types) return `has no operation that is known: "op" is ${JSON.stringify(op)}`;
  const fields = typeof type === "string" && Object.hasOwn(types, type) ? types[type] : undefined;
  if (!fields) return `has a "type" that ${JSON.stringify(op)} cannot have: ${JSON.stringify(type)}`;
  const wrong = wrongField(value, stamp) ?? wrongField(value, fields);
  if (wrong !== undefined) return `has ${wrong in value ? "a wrong" : "no"} "${wrong}"`;
  return value as unknown as HistoryEvent;
}

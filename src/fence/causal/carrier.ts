/**
 * Reading and writing one header of a message, whatever transports it: HTTP headers, gRPC metadata, and the headers of
 * AMQP and Kafka messages, each as its driver has them.
 *
 * Drivers do not deliver what was sent: gRPC gives arrays, Kafka gives buffers (one library as values of a plain object,
 * another also as the keys of a map), AMQP gives whatever type another publisher chose. A header that is there and cannot
 * be read is refused. Taken for absent it would be a message without a cause, and the order that clocks are for was lost.
 */

import { invalid, show } from "../errors.js";

type HeaderValue = string | number | boolean | Uint8Array | null | undefined;

/**
 * The headers of a message to be sent: a `Headers`, a `Map`, the `Metadata` of gRPC, or a plain object as `node:http`,
 * `amqplib` and `kafkajs` take it.
 */
export type HeaderCarrier =
  | { get(name: string): unknown; set(name: string, value: string): unknown }
  | { [name: string]: HeaderValue | readonly HeaderValue[] };

/** The headers of a received message: the same, a map with buffers as keys, or nothing. */
export type ReceivedHeaders = HeaderCarrier | ReadonlyMap<unknown, unknown> | null | undefined;

/** The name of a header in small letters; "" for what is no name. */
function nameOf(key: unknown): string {
  if (typeof key === "string") return key.toLowerCase();
  return key instanceof Uint8Array ? latin1(key).toLowerCase() : "";
}

const latin1 = (bytes: Uint8Array): string =>
  Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString("latin1");

/** All entries of that name, in any case: maps and objects may have several. */
function entriesOf(headers: object, name: string): [key: unknown, value: unknown][] {
  const entries: Iterable<[unknown, unknown]> = headers instanceof Map ? headers.entries() : Object.entries(headers);
  return [...entries].filter(([key, value]) => nameOf(key) === name && value !== undefined && value !== null);
}

/**
 * What the header says; undefined if there is none. Throws INVALID if it is there several times, is longer than
 * `bytesMax`, or is of a type that is no text.
 */
export function readHeader(headers: ReceivedHeaders, name: string, bytesMax: number): string | undefined {
  if (headers === undefined || headers === null) return undefined;
  if (typeof headers !== "object") throw invalid(`headers must be an object, not ${show(headers)}`);
  let value: unknown;
  if (!(headers instanceof Map) && typeof headers.get === "function") value = headers.get(name);
  else {
    const found = entriesOf(headers, name);
    if (found.length > 1) throw invalid(`there are ${found.length} headers ${name}`);
    value = found[0]?.[1];
  }
  if (Array.isArray(value)) {
    if (value.length > 1) throw invalid(`there are ${value.length} headers ${name}`);
    value = value[0];
  }
  if (value === undefined || value === null) return undefined;
  const text = textOf(value, name);
  if (text.length > bytesMax) throw invalid(`the header ${name} is longer than ${bytesMax} bytes`);
  return text;
}

function textOf(value: unknown, name: string): string {
  if (typeof value === "string") return value;
  if (typeof value === "number" && Number.isSafeInteger(value)) return String(value);
  if (value instanceof Uint8Array) return latin1(value);
  throw invalid(`the header ${name} is ${show(value)}, which is no text`);
}

/** Sets the header, in place of one that is there in another case. Returns the headers. */
export function writeHeader<H extends HeaderCarrier>(headers: H, name: string, value: string): H {
  if (!(headers instanceof Map) && typeof headers.set === "function") {
    headers.set(name, value);
    return headers;
  }
  const [first, ...others] = entriesOf(headers, name).map(([key]) => key);
  if (headers instanceof Map) {
    for (const other of others) headers.delete(other);
    if (first instanceof Uint8Array) headers.set(first, Buffer.from(value, "latin1"));
    else headers.set(first ?? name, value);
    return headers;
  }
  const plain = headers as Record<string, unknown>;
  for (const other of others) delete plain[other as string];
  plain[(first as string | undefined) ?? name] = value;
  return headers;
}

/**
 * What a message says of its producer, in its headers:
 *
 *     leasehold-key        what is fenced: the name of the lock, or name#slot
 *     leasehold-token      the token of the hold under which it was published
 *     leasehold-sequence   1, 2, 3… for this key and token; 0 is a marker, which has no payload
 *     leasehold-mode       "shared" if the lock was shared; otherwise there is no such header
 *     lamport-timestamp    the producer's Lamport clock, if it has one
 *
 * All values are text: amqplib would encode a number in a type that depends on its size, and Kafka's headers are bytes.
 */
import { invalid, show } from "../errors.js";
import { checkResource, readToken } from "../token.js";

export const KEY_HEADER = "leasehold-key";
export const TOKEN_HEADER = "leasehold-token";
export const SEQUENCE_HEADER = "leasehold-sequence";
export const MODE_HEADER = "leasehold-mode";
export const TIMESTAMP_HEADER = "lamport-timestamp";

const NAMES = [KEY_HEADER, TOKEN_HEADER, SEQUENCE_HEADER, MODE_HEADER, TIMESTAMP_HEADER];

/** The place of a message in the order of its key: tokens first, then sequences. */
export interface Position {
  /** What is fenced. */
  readonly key: string;
  readonly token: number;
  /** 1 for the first message under this token. 0: a marker, before the first. */
  readonly sequence: number;
}

/** What the headers of a message say. */
export interface Stamp extends Position {
  /** Published under a shared hold: checked against the floor, without an order among those who share. */
  readonly shared: boolean;
  /** The producer's Lamport timestamp, if it sent one. */
  readonly timestamp: number | undefined;
}

/**
 * Headers as drivers deliver them: amqplib and kafkajs as objects, @platformatic/kafka as a `Map`; their values as text
 * or bytes.
 */
export type ReceivedHeaders = Readonly<Record<string, unknown>> | ReadonlyMap<unknown, unknown>;

/** The headers of a message to be published. */
export function stampHeaders(stamp: Stamp): Record<string, string> {
  return {
    [KEY_HEADER]: stamp.key,
    [TOKEN_HEADER]: String(stamp.token),
    [SEQUENCE_HEADER]: String(stamp.sequence),
    ...(stamp.shared ? { [MODE_HEADER]: "shared" } : {}),
    ...(stamp.timestamp === undefined ? {} : { [TIMESTAMP_HEADER]: String(stamp.timestamp) }),
  };
}

/** Throws INVALID when headers that the user gives are ours: a stamp must not be overwritten. */
export function checkHeaders(headers: unknown): void {
  if (headers === undefined) return;
  if (typeof headers !== "object" || headers === null) {
    throw invalid(`the headers must be an object, not ${show(headers)}`);
  }
  for (const name of NAMES) {
    if (Object.hasOwn(headers, name)) throw invalid(`the header ${name} is set by the producer`);
  }
}

/** Reads the stamp of a received message. Throws INVALID when there is none, or when it is none. */
export function readStamp(headers: ReceivedHeaders | null | undefined): Stamp {
  const values = ours(headers ?? {});
  const mode = text(values, MODE_HEADER);
  if (mode !== undefined && mode !== "shared") throw invalid(`the header ${MODE_HEADER} is ${show(mode)}`);
  const timestamp = text(values, TIMESTAMP_HEADER);
  return {
    key: checkResource(text(values, KEY_HEADER)),
    token: whole(text(values, TOKEN_HEADER), TOKEN_HEADER),
    sequence: whole(text(values, SEQUENCE_HEADER), SEQUENCE_HEADER),
    shared: mode === "shared",
    timestamp: timestamp === undefined ? undefined : readTimestamp(timestamp),
  };
}

/** Our headers of a message, by name. */
function ours(headers: ReceivedHeaders): ReadonlyMap<string, unknown> {
  const entries = headers instanceof Map ? headers.entries() : Object.entries(headers);
  const found = new Map<string, unknown>();
  for (const [rawName, value] of entries) {
    const name = rawName instanceof Uint8Array ? Buffer.from(rawName).toString() : rawName;
    if (typeof name === "string" && NAMES.includes(name)) found.set(name, value);
  }
  return found;
}

function text(values: ReadonlyMap<string, unknown>, name: string): string | undefined {
  const value = values.get(name);
  if (value === undefined || value === null) return undefined;
  if (typeof value === "string") return value;
  if (value instanceof Uint8Array) return Buffer.from(value.buffer, value.byteOffset, value.byteLength).toString();
  throw invalid(`the header ${name} is ${show(value)}; it must be there once, as text`);
}

function whole(value: string | undefined, name: string): number {
  if (value === undefined) throw invalid(`the message has no header ${name}`);
  if (!/^\d{1,16}$/.test(value)) throw invalid(`the header ${name} is ${show(value)}`);
  return readToken(value);
}

function readTimestamp(value: string): number {
  const timestamp = whole(value, TIMESTAMP_HEADER);
  // The last safe integer would leave a clock no number for the receipt.
  if (timestamp === Number.MAX_SAFE_INTEGER) throw invalid(`the header ${TIMESTAMP_HEADER} is at its end`);
  return timestamp;
}

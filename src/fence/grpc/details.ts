/**
 * `google.rpc.Status` as it travels in the trailer `grpc-status-details-bin`: code, message, and as details an `ErrorInfo`
 * (reason, domain, metadata) and, where a retry makes sense, a `RetryInfo`. It is what the lock server sends, too. The few
 * bytes are written by hand, since the kit depends on nothing.
 *
 * In protobuf a field is its number and wire type in one varint, and then a varint (type 0) or a length and so many
 * bytes (type 2). That is all that occurs here; of the rest of the world's messages, fixed numbers (1 and 5) are skipped.
 */

export interface Details {
  readonly code: number;
  readonly message: string;
  readonly reason: string;
  readonly metadata: Readonly<Record<string, string>>;
  /** When to try again, in whole seconds; undefined: do not simply repeat. */
  readonly retryAfterS?: number | undefined;
}

const DOMAIN = "leasehold";
const ERROR_INFO = "type.googleapis.com/google.rpc.ErrorInfo";
const RETRY_INFO = "type.googleapis.com/google.rpc.RetryInfo";
/** More than what this kit writes, and less than what would be a burden. */
const BYTES_MAX = 16_384;
const FIELDS_MAX = 100;

function varint(value: number): Buffer {
  const bytes: number[] = [];
  let rest = value;
  while (rest >= 0x80) {
    bytes.push((rest % 0x80) + 0x80);
    rest = Math.floor(rest / 0x80);
  }
  return Buffer.from([...bytes, rest]);
}

const number = (field: number, value: number) => Buffer.concat([varint(field * 8), varint(value)]);

function bytes(field: number, value: string | Buffer): Buffer {
  const content = Buffer.from(value as string);
  return Buffer.concat([varint(field * 8 + 2), varint(content.length), content]);
}

const any = (type: string, value: Buffer) => Buffer.concat([bytes(1, type), bytes(2, value)]);

function errorInfo({ reason, metadata }: Details): Buffer {
  const entries = Object.entries(metadata).map(([key, value]) =>
    bytes(3, Buffer.concat([bytes(1, key), bytes(2, value)])),
  );
  return Buffer.concat([bytes(1, reason), bytes(2, DOMAIN), ...entries]);
}

export function encodeDetails(details: Details): Buffer {
  const { code, message, retryAfterS } = details;
  const parts = [number(1, code), bytes(2, message), bytes(3, any(ERROR_INFO, errorInfo(details)))];
  if (retryAfterS !== undefined) parts.push(bytes(3, any(RETRY_INFO, bytes(1, number(1, retryAfterS)))));
  return Buffer.concat(parts);
}

interface Field {
  readonly field: number;
  readonly value: number | Buffer;
}

/** Throws RangeError for bytes that end too early or are no protobuf. */
class Reader {
  readonly #bytes: Buffer;
  #at = 0;
  #fields = 0;

  constructor(content: Buffer) {
    this.#bytes = content;
  }

  *[Symbol.iterator](): Generator<Field> {
    while (this.#at < this.#bytes.length) {
      if (++this.#fields > FIELDS_MAX) throw new RangeError("too many fields");
      const key = this.#varint();
      const [field, type] = [Math.floor(key / 8), key % 8];
      if (type === 0) yield { field, value: this.#varint() };
      else if (type === 2) yield { field, value: this.#take(this.#varint()) };
      else if (type === 1) this.#take(8);
      else if (type === 5) this.#take(4);
      else throw new RangeError("an unknown wire type");
    }
  }

  #varint(): number {
    let value = 0;
    for (let unit = 1; unit < 2 ** 70; unit *= 0x80) {
      const byte = this.#take(1)[0] as number;
      value += (byte % 0x80) * unit;
      if (byte < 0x80) return value;
    }
    throw new RangeError("a number without an end");
  }

  #take(count: number): Buffer {
    const end = this.#at + count;
    if (end > this.#bytes.length) throw new RangeError("the message ends too early");
    const taken = this.#bytes.subarray(this.#at, end);
    this.#at = end;
    return taken;
  }
}

const buffer = (value: number | Buffer): Buffer => {
  if (typeof value === "number") throw new RangeError("a number where bytes were expected");
  return value;
};
const text = (value: number | Buffer) => buffer(value).toString("utf8");

function fieldsOf(content: Buffer): Map<number, number | Buffer> {
  return new Map([...new Reader(content)].map(({ field, value }) => [field, value]));
}

function readErrorInfo(content: Buffer): { reason: string; metadata: Record<string, string> } | undefined {
  const metadata: [string, string][] = [];
  let reason = "";
  let domain = "";
  for (const { field, value } of new Reader(content)) {
    if (field === 1) reason = text(value);
    if (field === 2) domain = text(value);
    if (field !== 3) continue;
    const entry = fieldsOf(buffer(value));
    metadata.push([text(entry.get(1) ?? Buffer.alloc(0)), text(entry.get(2) ?? Buffer.alloc(0))]);
  }
  return domain === DOMAIN ? { reason, metadata: Object.fromEntries(metadata) } : undefined;
}

/** The reason and metadata in a trailer of Leasehold's; undefined for any other bytes. */
export function decodeDetails(content: Buffer): { reason: string; metadata: Record<string, string> } | undefined {
  if (content.length > BYTES_MAX) return undefined;
  try {
    for (const { field, value } of new Reader(content)) {
      if (field !== 3) continue;
      const detail = fieldsOf(buffer(value));
      if (text(detail.get(1) ?? Buffer.alloc(0)) !== ERROR_INFO) continue;
      const info = readErrorInfo(buffer(detail.get(2) ?? Buffer.alloc(0)));
      if (info) return info;
    }
  } catch (error) {
    if (!(error instanceof RangeError)) throw error; // anything else is a bug in here
  }
  return undefined;
}

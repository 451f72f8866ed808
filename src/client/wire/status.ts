/**
 * `google.rpc.Status` as it travels in the trailer `grpc-status-details-bin`: a code, a message, and as details one
 * `ErrorInfo` (reason, domain, metadata) and, where a retry makes sense, one `RetryInfo`.
 */
import pb, { Reader } from "./pb.js";

export interface StatusDetails {
  /** The gRPC status code. */
  readonly code: number;
  readonly message: string;
  readonly reason: string;
  readonly metadata?: Readonly<Record<string, string>>;
  /** When to try again; absent or 0: do not simply repeat. */
  readonly retryAfterMs?: number;
}

const DOMAIN = "leasehold";
const ERROR_INFO = "type.googleapis.com/google.rpc.ErrorInfo";
const RETRY_INFO = "type.googleapis.com/google.rpc.RetryInfo";

const tag = (field: number, wireType: 0 | 2) => (field << 3) | wireType;

function any(typeUrl: string, value: Uint8Array): Uint8Array {
  return pb.Writer.create().uint32(tag(1, 2)).string(typeUrl).uint32(tag(2, 2)).bytes(value).finish();
}

function errorInfo(status: StatusDetails): Uint8Array {
  const writer = pb.Writer.create().uint32(tag(1, 2)).string(status.reason).uint32(tag(2, 2)).string(DOMAIN);
  for (const [key, value] of Object.entries(status.metadata ?? {})) {
    writer.uint32(tag(3, 2)).fork();
    writer.uint32(tag(1, 2)).string(key).uint32(tag(2, 2)).string(value).ldelim();
  }
  return writer.finish();
}

function retryInfo(retryAfterMs: number): Uint8Array {
  const writer = pb.Writer.create().uint32(tag(1, 2)).fork();
  writer.uint32(tag(1, 0)).uint64(Math.floor(retryAfterMs / 1000));
  writer.uint32(tag(2, 0)).int32(Math.round((retryAfterMs % 1000) * 1e6));
  return writer.ldelim().finish();
}

export function encodeStatus(status: StatusDetails): Buffer {
  const writer = pb.Writer.create().uint32(tag(1, 0)).int32(status.code).uint32(tag(2, 2)).string(status.message);
  writer.uint32(tag(3, 2)).bytes(any(ERROR_INFO, errorInfo(status)));
  if (status.retryAfterMs) writer.uint32(tag(3, 2)).bytes(any(RETRY_INFO, retryInfo(status.retryAfterMs)));
  return writer.finish() as Buffer;
}

type Field = { readonly number: number; readonly value: number | Uint8Array };

function* fields(bytes: Uint8Array): Generator<Field> {
  const reader = Reader.create(bytes);
  while (reader.pos < reader.len) {
    const key = reader.uint32();
    const number = key >>> 3;
    if ((key & 7) === 0) yield { number, value: reader.uint64() };
    else if ((key & 7) === 2) yield { number, value: reader.bytes() };
    else reader.skipType(key & 7);
  }
}

const text = (value: number | Uint8Array) => Buffer.from(value as Uint8Array).toString("utf8");

/** Reads what `encodeStatus` wrote. Returns undefined for bytes that hold no ErrorInfo of Leasehold's. */
export function decodeStatus(bytes: Uint8Array): StatusDetails | undefined {
  try {
    return readStatus(bytes);
  } catch {
    return undefined; // somebody else's trailer
  }
}

function readStatus(bytes: Uint8Array): StatusDetails | undefined {
  let code = 2;
  let message = "";
  let info: { reason: string; metadata: Record<string, string> } | undefined;
  let retryAfterMs = 0;
  for (const field of fields(bytes)) {
    if (field.number === 1) code = field.value as number;
    else if (field.number === 2) message = text(field.value);
    else if (field.number === 3) {
      const [typeUrl, value] = readAny(field.value as Uint8Array);
      if (typeUrl === ERROR_INFO) info = readErrorInfo(value);
      else if (typeUrl === RETRY_INFO) retryAfterMs = readRetryInfo(value);
    }
  }
  return info && { code, message, reason: info.reason, metadata: info.metadata, retryAfterMs };
}

function readAny(bytes: Uint8Array): [string, Uint8Array] {
  let typeUrl = "";
  let value = new Uint8Array();
  for (const field of fields(bytes)) {
    if (field.number === 1) typeUrl = text(field.value);
    else if (field.number === 2) value = field.value as Uint8Array<ArrayBuffer>;
  }
  return [typeUrl, value];
}

function readErrorInfo(bytes: Uint8Array): { reason: string; metadata: Record<string, string> } | undefined {
  let reason = "";
  let domain = "";
  const metadata: Record<string, string> = {};
  for (const field of fields(bytes)) {
    if (field.number === 1) reason = text(field.value);
    else if (field.number === 2) domain = text(field.value);
    else if (field.number === 3) {
      const [key, value] = [...fields(field.value as Uint8Array)];
      if (key && value) metadata[text(key.value)] = text(value.value);
    }
  }
  return domain === DOMAIN ? { reason, metadata } : undefined;
}

function readRetryInfo(bytes: Uint8Array): number {
  let retryAfterMs = 0;
  for (const delay of fields(bytes)) {
    for (const field of fields(delay.value as Uint8Array)) {
      if (field.number === 1) retryAfterMs += (field.value as number) * 1000;
      else if (field.number === 2) retryAfterMs += (field.value as number) / 1e6;
    }
  }
  return retryAfterMs;
}

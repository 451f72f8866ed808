/**
 * Server reflection, `grpc.reflection.v1` and `v1alpha` (the same messages under two names): what lets `buf curl` and
 * `grpcurl` call this server without its proto files.
 *
 * The answers are the compiler's own descriptor bytes, handed out unchanged; only the names in them are looked at. The
 * few messages involved are read and written here by hand.
 */
import { invalid } from "./check.js";
import { failureOf, grpcStatus } from "./errors.js";
import type { RawStream } from "./grpc-session.js";

/** Answers one request. */
export type Reflection = (request: Buffer) => Buffer;

const NOT_FOUND = 5;
const UNIMPLEMENTED = 12;

interface ProtoFile {
  readonly name: string;
  readonly bytes: Buffer;
  readonly dependencies: readonly string[];
}

/** `files`: serialized FileDescriptorProtos. */
export function reflection(files: readonly Buffer[]): Reflection {
  const byName = new Map<string, ProtoFile>();
  const bySymbol = new Map<string, ProtoFile>();
  const services: string[] = [];
  for (const bytes of files) {
    const file: ProtoFile = {
      name: textField(bytes, 1),
      bytes,
      dependencies: textFields(bytes, 3),
    };
    byName.set(file.name, file);
    const prefix = qualify("", textField(bytes, 2));
    for (const symbol of symbolsOf(bytes, prefix)) bySymbol.set(symbol, file);
    for (const service of messageFields(bytes, 6)) services.push(qualify(prefix, textField(service, 1)));
  }
  services.sort();

  return (request) => {
    const [asked] = fields(request).filter((field) => field.number >= 3 && field.number <= 7);
    return Buffer.concat([lengthDelimited(2, request), answer(asked)]);
  };

  function answer(asked: Field | undefined): Buffer {
    const text = asked?.bytes.toString("utf8") ?? "";
    switch (asked?.number) {
      case 3:
        return descriptors(byName.get(text), `no file ${text}`);
      case 4:
        return descriptors(bySymbol.get(text), `no symbol ${text}`);
      case 5:
        return errorResponse(NOT_FOUND, "there are no extensions");
      case 6:
        return errorResponse(NOT_FOUND, "there are no extensions");
      case 7:
        return lengthDelimited(6, Buffer.concat(services.map((name) => lengthDelimited(1, lengthDelimited(1, name)))));
      default:
        return errorResponse(UNIMPLEMENTED, "the request is of a kind that this server does not know");
    }
  }

  /** The file and all that it imports. */
  function descriptors(file: ProtoFile | undefined, missing: string): Buffer {
    if (file === undefined) return errorResponse(NOT_FOUND, missing);
    const wanted = new Set([file]);
    for (const { dependencies } of wanted) {
      for (const name of dependencies) {
        const dependency = byName.get(name);
        if (dependency !== undefined) wanted.add(dependency);
      }
    }
    return lengthDelimited(4, Buffer.concat([...wanted].map(({ bytes }) => lengthDelimited(1, bytes))));
  }
}

/** The FileDescriptorProtos in a FileDescriptorSet. */
export function filesOf(descriptorSet: Buffer): Buffer[] {
  return messageFields(descriptorSet, 1);
}

export function serveReflection(answer: Reflection, call: RawStream): void {
  call.on("data", (request: Buffer) => {
    try {
      if (call.write(answer(request))) return;
      call.pause(); // whoever does not read is not read from
      call.once("drain", () => call.resume());
    } catch {
      call.emit("error", grpcStatus(failureOf(invalid("the request is malformed"))));
    }
  });
  call.on("end", () => call.end());
}

function errorResponse(code: number, message: string): Buffer {
  return lengthDelimited(7, Buffer.concat([Buffer.from([0x08, code]), lengthDelimited(2, message)]));
}

// ------------------------------------------------------------------------------------------------ names

const qualify = (prefix: string, name: string) => (prefix === "" ? name : `${prefix}.${name}`);

/** Services, methods, messages and enums of a file. */
function* symbolsOf(file: Buffer, prefix: string): Generator<string> {
  for (const service of messageFields(file, 6)) {
    const name = qualify(prefix, textField(service, 1));
    yield name;
    for (const method of messageFields(service, 2)) yield qualify(name, textField(method, 1));
  }
  for (const message of messageFields(file, 4)) yield* symbolsOfMessage(message, prefix);
  for (const enumeration of messageFields(file, 5)) yield qualify(prefix, textField(enumeration, 1));
}

function* symbolsOfMessage(message: Buffer, prefix: string): Generator<string> {
  const name = qualify(prefix, textField(message, 1));
  yield name;
  for (const nested of messageFields(message, 3)) yield* symbolsOfMessage(nested, name);
  for (const enumeration of messageFields(message, 4)) yield qualify(name, textField(enumeration, 1));
}

// ------------------------------------------------------------------------------------------------ bytes

interface Field {
  readonly number: number;
  /** Of a length-delimited field; empty for others, which nothing here looks at. */
  readonly bytes: Buffer;
}

/** The fields of a message. Throws a RangeError for bytes that are none. */
function fields(message: Buffer): Field[] {
  const found: Field[] = [];
  let position = 0;
  const varint = () => {
    let value = 0;
    for (let scale = 1; ; scale *= 128) {
      const byte = message[position++];
      if (byte === undefined || scale > 2 ** 63) throw new RangeError("truncated");
      value += (byte & 127) * scale;
      if (byte < 128) return value;
    }
  };
  const take = (length: number) => {
    position += length;
    if (position > message.length) throw new RangeError("truncated");
    return message.subarray(position - length, position);
  };
  while (position < message.length) {
    const key = varint();
    const number = Math.floor(key / 8);
    const wireType = key % 8;
    if (wireType === 2) found.push({ number, bytes: take(varint()) });
    else {
      found.push({ number, bytes: Buffer.alloc(0) });
      if (wireType === 0) varint();
      else if (wireType === 1) take(8);
      else if (wireType === 5) take(4);
      else throw new RangeError("unknown wire type");
    }
  }
  return found;
}

function messageFields(message: Buffer, number: number): Buffer[] {
  return fields(message).flatMap((field) => (field.number === number ? [field.bytes] : []));
}

function textFields(message: Buffer, number: number): string[] {
  return messageFields(message, number).map((bytes) => bytes.toString("utf8"));
}

function textField(message: Buffer, number: number): string {
  return textFields(message, number)[0] ?? "";
}

function lengthDelimited(number: number, value: Buffer | string): Buffer {
  const bytes = typeof value === "string" ? Buffer.from(value, "utf8") : value;
  return Buffer.concat([Buffer.from(varintBytes(number * 8 + 2)), Buffer.from(varintBytes(bytes.length)), bytes]);
}

function varintBytes(value: number): number[] {
  const out: number[] = [];
  let rest = value;
  for (; rest > 127; rest = Math.floor(rest / 128)) out.push((rest % 128) | 128);
  out.push(rest);
  return out;
}

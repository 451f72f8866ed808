/**
 * The codec: the only place that touches protobuf. Server and client share it; it is no public interface.
 */
import { leasehold } from "./gen/leasehold.js";
import { Reader } from "./pb.js";

export { leasehold } from "./gen/leasehold.js";
export { decodeStatus, encodeStatus, type StatusDetails } from "./status.js";
export { whyUnreachable } from "./unreachable.js";

export const v1 = leasehold.v1;

/** A generated message class: what `encode` and `decode` need of it. */
export interface MessageType<In, Out> {
  encode(message: In, writer?: undefined): { finish(): Uint8Array };
  decode(bytes: Uint8Array): Out;
}

/** The bytes are not a message of the expected type: malformed, text that is not UTF-8, an integer above 2^53 - 1. */
export class WireError extends Error {
  override readonly name = "WireError";
}

export function encode<In>(type: MessageType<In, unknown>, message: In): Buffer {
  return type.encode(message).finish() as Buffer;
}

/** Decodes strictly. Throws `WireError`. */
export function decode<Out>(type: MessageType<never, Out>, bytes: Uint8Array): Out {
  try {
    // The generated code takes a reader as well; ours yields numbers, which its type does not know.
    return type.decode(Reader.create(bytes) as unknown as Uint8Array);
  } catch (error) {
    throw new WireError(error instanceof Error ? error.message : String(error));
  }
}

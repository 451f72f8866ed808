import protobuf from "protobufjs/minimal.js";

/**
 * The protobuf runtime that the generated code is bound to, in place of protobufjs itself: 64-bit integers are plain
 * numbers, and one above 2^53 - 1 is an error instead of a rounded value. (`Long` objects halve the speed, and turning
 * them off in protobufjs proper would change the copy that the application shares.)
 */
type NumericReader = Omit<protobuf.BufferReader, "uint64" | "sint64"> & { uint64(): number; sint64(): number };
const BufferReader = protobuf.BufferReader as unknown as { new (buffer: Uint8Array): NumericReader };

class WireReader extends BufferReader {
  override discardUnknown = true;

  override uint64(): number {
    const { buf, len } = this;
    let pos = this.pos;
    let low = 0;
    let shift = 0;
    // The first four bytes fit into 28 bits, which bit operations hold without a sign.
    for (let i = 0; i < 4; i++, shift += 7) {
      if (pos >= len) throw new RangeError("truncated varint");
      const byte = buf[pos++] as number;
      low |= (byte & 127) << shift;
      if (byte < 128) {
        this.pos = pos;
        return low;
      }
    }
    let value = low;
    for (let scale = 2 ** 28, i = 0; i < 6; i++, scale *= 128) {
      if (pos >= len) throw new RangeError("truncated varint");
      const byte = buf[pos++] as number;
      value += (byte & 127) * scale;
      if (byte < 128) {
        if (value > Number.MAX_SAFE_INTEGER) throw new RangeError("integer above 2^53 - 1");
        this.pos = pos;
        return value;
      }
    }
    throw new RangeError("varint longer than 10 bytes");
  }

  /** Zigzag: 0, -1, 1, -2, … are 0, 1, 2, 3, … on the wire, so that it holds from -2^52 to 2^52 - 1. */
  override sint64(): number {
    const value = this.uint64();
    return value % 2 === 0 ? value / 2 : -(value + 1) / 2;
  }

  static create(buffer: Uint8Array): WireReader {
    return new WireReader(
      Buffer.isBuffer(buffer) ? buffer : Buffer.from(buffer.buffer, buffer.byteOffset, buffer.byteLength),
    );
  }
}

/** What protobufjs does, but deletes only what is there: deleting is slow, and a command has nine alternatives. */
function oneOfSetter(names: readonly string[]) {
  return function (this: Record<string, unknown>, chosen: string): void {
    for (const name of names) if (name !== chosen && this[name] != null) delete this[name];
  };
}

const util = Object.create(protobuf.util, {
  Long: { value: null },
  oneOfSetter: { value: oneOfSetter },
}) as typeof protobuf.util;

export { WireReader as Reader };

export default { Reader: WireReader, Writer: protobuf.Writer, util, roots: {} as Record<string, unknown> };

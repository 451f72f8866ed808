/**
 * Verifies a table file (`NNNNNN.ldb`) of LevelDB.
 *
 * The file ends in a footer of 48 bytes: the places of the metaindex and of the index block, padding, a magic number.
 * The entries of these two blocks hold the places of all others. A place is an offset and a length, both varints; a
 * block is followed by its compression type (1 byte) and the masked CRC-32C over both (4 bytes).
 */
import { crc32c, unmask } from "./crc32c.js";
import { JournalCorruptError } from "./journal.js";

const FOOTER_BYTES = 48;
const TRAILER_BYTES = 5;
const MAGIC = 0xdb4775248b80fb57n;
/** No entries and no restart points. */
const EMPTY_BLOCK = new Uint8Array(4);

/** Reads LevelDB's variable-length numbers: seven bits a byte, the lowest first. */
export class VarintReader {
  #at = 0;
  constructor(readonly bytes: Uint8Array) {}

  /** What has not been read. */
  get rest(): Uint8Array {
    return this.bytes.subarray(this.#at);
  }

  get done(): boolean {
    return this.#at >= this.bytes.length;
  }

  varint(): number {
    let value = 0;
    for (let factor = 1; factor <= 2 ** 49; factor *= 128) {
      const byte = this.bytes[this.#at++];
      if (byte === undefined) break;
      value += (byte & 0x7f) * factor;
      // LevelDB writes no superfluous zeros at the end: a flipped bit may have made one.
      if (byte === 0 && factor > 1)
        throw new JournalCorruptError("a number in a LevelDB file is not as it was written");
      if (byte < 0x80) return value;
    }
    throw new JournalCorruptError("a number in a LevelDB file is cut short");
  }

  /** Bytes, behind their length; or of a length that is known. */
  slice(length = this.varint()): Uint8Array {
    if (this.#at + length > this.bytes.length) throw new JournalCorruptError("a LevelDB file ends too early");
    this.#at += length;
    return this.bytes.subarray(this.#at - length, this.#at);
  }
}

/** Throws `JournalCorruptError` with `name` and the offset. */
export function verifyTable(bytes: Uint8Array, name: string): void {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (bytes.length < FOOTER_BYTES || view.getBigUint64(bytes.length - 8, true) !== MAGIC) {
    throw new JournalCorruptError(`${name} is damaged at its end: not a table of LevelDB`);
  }
  const block = (place: VarintReader): Uint8Array => {
    const from = place.varint();
    const end = from + place.varint();
    if (end + TRAILER_BYTES > bytes.length - FOOTER_BYTES) {
      throw new JournalCorruptError(`${name} is damaged: a block at offset ${from} reaches past its end`);
    }
    if (crc32c(bytes, from, end + 1) !== unmask(view.getUint32(end + 1, true))) {
      throw new JournalCorruptError(`${name} is damaged at offset ${from}: a block with a wrong checksum`);
    }
    // Leasehold never has LevelDB compress. If somebody else did, what such an index names is checked in use.
    return bytes[end] === 0 ? bytes.subarray(from, end) : EMPTY_BLOCK;
  };
  const footer = new VarintReader(bytes.subarray(bytes.length - FOOTER_BYTES, bytes.length - 8));
  const indexes = [block(footer), block(footer)];
  if (footer.rest.some((byte) => byte !== 0))
    throw new JournalCorruptError(`${name} is damaged at its end: its padding`);
  for (const index of indexes) {
    for (const place of values(index)) block(new VarintReader(place));
  }
}

/** The values in a block: entries (shared, unshared, value length, unshared key, value), then their restart points. */
function* values(block: Uint8Array): Generator<Uint8Array> {
  const view = new DataView(block.buffer, block.byteOffset, block.byteLength);
  const restarts = view.getUint32(block.length - 4, true);
  const entries = new VarintReader(block.subarray(0, block.length - 4 - 4 * restarts));
  while (!entries.done) {
    entries.varint();
    const unshared = entries.varint();
    const length = entries.varint();
    entries.slice(unshared);
    yield entries.slice(length);
  }
}

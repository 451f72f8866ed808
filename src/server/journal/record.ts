/**
 * How one append is stored.
 *
 * A record is text: `<seq> <count>\n`, then one line per mutation (`key\tvalue` sets, `key` alone deletes), each ended
 * by a newline, then eight hexadecimal digits. Keys and values hold no control characters, so nothing is escaped.
 *
 * The digits are the CRC-32 of everything before them, started from the checksum of the record before. A record
 * therefore proves that the whole chain up to it is the one that was written: a record that is missing, exchanged or
 * taken from another store breaks every checksum after it. The chain of a new store starts from its cluster id.
 */
import { crc32 } from "node:zlib";
import { JournalCorruptError, type Mutations } from "./journal.js";

/** Length of a checksum as text. */
export const CHECKSUM_CHARS = 8;

/** The largest record; more is a fault of the caller, whose batches are bounded far below. */
const RECORD_BYTES_MAX = 64 * 1024 * 1024;

/** A checksum as eight hexadecimal digits. */
export function checksumText(checksum: number): string {
  return (checksum >>> 0).toString(16).padStart(CHECKSUM_CHARS, "0");
}

/** Where the chain of a store begins. */
export function chainStart(clusterId: string): number {
  return crc32(clusterId);
}

export interface EncodedRecord {
  /** The stored bytes. A view into the encoder's buffer: valid until the next `encode`. */
  readonly bytes: Uint8Array;
  /** The checksum to chain the next record to. */
  readonly chain: number;
}

/** Encodes records into one buffer that it keeps: this runs once per batch of commands. */
export class RecordEncoder {
  #buffer = Buffer.allocUnsafe(64 * 1024);

  /** Throws for a list that is not pairs and for a record above `RECORD_BYTES_MAX`; nothing has changed then. */
  encode(seq: number, mutations: Mutations, chain: number): EncodedRecord {
    if (mutations.length % 2 !== 0) throw new Error("mutations are pairs of key and value");
    // Measured: building one string and writing it at once beats every way of filling the buffer piece by piece.
    let text = `${seq} ${mutations.length / 2}\n`;
    for (let i = 0; i < mutations.length; i += 2) {
      const value = mutations[i + 1];
      text += value === null ? `${mutations[i]}\n` : `${mutations[i]}\t${value}\n`;
    }
    this.#reserve(text.length);
    const length = this.#buffer.write(text, 0, "utf8");
    const next = crc32(this.#buffer.subarray(0, length), chain);
    this.#buffer.write(checksumText(next), length, "latin1");
    return { bytes: this.#buffer.subarray(0, length + CHECKSUM_CHARS), chain: next };
  }

  #reserve(chars: number): void {
    if (chars > RECORD_BYTES_MAX) throw new Error(`a record of ${chars} characters exceeds ${RECORD_BYTES_MAX} bytes`);
    const bytes = chars * 3 + CHECKSUM_CHARS;
    if (this.#buffer.length < bytes) this.#buffer = Buffer.allocUnsafe(bytes * 2);
  }
}

/** Checks that `bytes` is record `seq` and follows `chain`; throws `JournalCorruptError` naming the record. */
export function decodeRecord(bytes: Buffer, seq: number, chain: number): { mutations: Mutations; chain: number } {
  const end = bytes.length - CHECKSUM_CHARS;
  if (end <= 0) throw new JournalCorruptError(`log record ${seq} is cut short: ${bytes.length} bytes`);
  const next = crc32(bytes.subarray(0, end), chain);
  if (bytes.toString("latin1", end) !== checksumText(next)) {
    throw new JournalCorruptError(`log record ${seq} does not follow record ${seq - 1}: its checksum is wrong`);
  }
  const lines = bytes.toString("utf8", 0, end).split("\n");
  const count = lines.length - 2;
  if (lines[0] !== `${seq} ${count}` || lines[count + 1] !== "") {
    throw new JournalCorruptError(`log record ${seq} holds ${count} mutations and says "${lines[0]}"`);
  }
  const mutations: (string | null)[] = [];
  for (let i = 1; i <= count; i++) {
    const line = lines[i] as string;
    const tab = line.indexOf("\t");
    if (tab < 0) mutations.push(line, null);
    else mutations.push(line.slice(0, tab), line.slice(tab + 1));
  }
  return { mutations, chain: next };
}

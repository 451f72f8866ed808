/**
 * Reads LevelDB's log format, strictly: its write-ahead log (`NNNNNN.log`) and its `MANIFEST`.
 *
 * The format: blocks of 32 KiB, each a row of physical records, and fewer than 7 bytes of padding at its end. A
 * physical record is a masked CRC-32C over type and data (4 bytes), the length of the data (2 bytes), a type (1 byte),
 * the data; all little-endian. A logical record is one FULL, or a FIRST, any MIDDLEs and a LAST.
 *
 * What a crash leaves at the end of a file: a record that reaches past the end, a FIRST without its LAST, or zeros.
 * A damaged length also reaches past the end, and would hide everything behind it. The two are told apart: the bytes
 * of a record whose length is damaged still match its checksum at their true length, or a sound record follows later.
 */
import { crc32c, matchesAtSomeLength, unmask } from "./crc32c.js";
import { JournalCorruptError } from "./journal.js";

const BLOCK_BYTES = 32 * 1024;
const HEADER_BYTES = 7;
const FULL = 1;
const FIRST = 2;
const LAST = 4;

/** Takes each physical record's data; `last` ends a logical record. */
type FragmentSink = (data: Uint8Array, last: boolean) => void;

/** Reads one file to its end. Throws `JournalCorruptError` with `name` and the offset for what no crash can leave. */
export function readLog(bytes: Uint8Array, name: string, onFragment: FragmentSink = () => {}): void {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let inside = false;
  let at = 0;
  while (at + HEADER_BYTES <= bytes.length) {
    const blockEnd = at - (at % BLOCK_BYTES) + BLOCK_BYTES;
    if (blockEnd - at < HEADER_BYTES) {
      at = blockEnd;
      continue;
    }
    const end = at + HEADER_BYTES + view.getUint16(at + 4, true);
    const type = bytes[at + 6]!;
    if (end > blockEnd || (end > bytes.length && !isTorn(view, bytes, at))) {
      throw new JournalCorruptError(`${name} is damaged at offset ${at}: a record with a wrong length`);
    }
    if (end > bytes.length) return;
    if (type === 0 && bytes.subarray(at).every((byte) => byte === 0)) return;
    if (!isSound(view, bytes, at, end)) {
      throw new JournalCorruptError(`${name} is damaged at offset ${at}: a record with a wrong checksum`);
    }
    const starts = type === FULL || type === FIRST;
    if (starts === inside)
      throw new JournalCorruptError(`${name} is damaged at offset ${at}: a record without its end`);
    inside = type !== FULL && type !== LAST;
    onFragment(bytes.subarray(at + HEADER_BYTES, end), !inside);
    at = end;
  }
}

function isSound(view: DataView, bytes: Uint8Array, at: number, end: number): boolean {
  const type = bytes[at + 6]!;
  return type >= FULL && type <= LAST && crc32c(bytes, at + 6, end) === unmask(view.getUint32(at, true));
}

/** Whether the record at `at`, which claims to reach past the end of the file, is the rest of an unfinished write. */
function isTorn(view: DataView, bytes: Uint8Array, at: number): boolean {
  if (matchesAtSomeLength(bytes, at + 6, unmask(view.getUint32(at, true)))) return false;
  for (let next = at + 1; next + HEADER_BYTES <= bytes.length; next++) {
    const end = next + HEADER_BYTES + view.getUint16(next + 4, true);
    if (end <= bytes.length && isSound(view, bytes, next, end)) return false;
  }
  return true;
}

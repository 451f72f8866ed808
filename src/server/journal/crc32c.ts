/** CRC-32C (Castagnoli), the checksum in LevelDB's files, four bytes at a time. */

// Signed numbers throughout: V8 keeps those in registers, unsigned ones above 2^31 it would have to box.
const TABLES: readonly Int32Array[] = buildTables();

function buildTables(): Int32Array[] {
  const tables = [0, 1, 2, 3].map(() => new Int32Array(256));
  for (let byte = 0; byte < 256; byte++) {
    let crc = byte;
    for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ 0x82f63b78 : crc >>> 1;
    tables[0]![byte] = crc;
  }
  for (let step = 1; step < 4; step++) {
    for (let byte = 0; byte < 256; byte++) {
      const before = tables[step - 1]![byte]!;
      tables[step]![byte] = tables[0]![before & 0xff]! ^ (before >>> 8);
    }
  }
  return tables;
}

/** CRC-32C of `bytes[from, to)`, as a signed 32-bit number. */
export function crc32c(bytes: Uint8Array, from = 0, to = bytes.length): number {
  const [t0, t1, t2, t3] = TABLES as [Int32Array, Int32Array, Int32Array, Int32Array];
  let crc = -1;
  let i = from;
  for (const whole = to - 3; i < whole; i += 4) {
    crc ^= bytes[i]! | (bytes[i + 1]! << 8) | (bytes[i + 2]! << 16) | (bytes[i + 3]! << 24);
    crc = t3[crc & 0xff]! ^ t2[(crc >>> 8) & 0xff]! ^ t1[(crc >>> 16) & 0xff]! ^ t0[crc >>> 24]!;
  }
  for (; i < to; i++) crc = t0[(crc ^ bytes[i]!) & 0xff]! ^ (crc >>> 8);
  return ~crc;
}

/**
 * The lengths at which the CRC-32C of `bytes[from, from + length)` is `expected`: is there one? Up to the end of
 * `bytes`.
 */
export function matchesAtSomeLength(bytes: Uint8Array, from: number, expected: number): boolean {
  const table = TABLES[0]!;
  let crc = -1;
  for (let i = from; i < bytes.length; i++) {
    crc = table[(crc ^ bytes[i]!) & 0xff]! ^ (crc >>> 8);
    if (~crc === expected) return true;
  }
  return false;
}

/** LevelDB stores checksums rotated and shifted, because data may itself contain checksums; this undoes it. */
export function unmask(masked: number): number {
  const rotated = (masked - 0xa282ead8) | 0;
  return (rotated >>> 17) | (rotated << 15);
}

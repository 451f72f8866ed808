/**
 * The hash slot of a key in a Redis Cluster: CRC16 of the key, or of its hash tag, modulo 16384. A script may only touch
 * keys of one slot. From the Redis cluster specification, "Key distribution model", "Hash tags" and appendix A (CRC-16
 * with the polynomial 0x1021 and the start value 0, XMODEM): https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/
 */

const SLOTS = 16_384;
const OPEN = 0x7b; // {
const CLOSE = 0x7d; // }

const TABLE = Uint16Array.from({ length: 256 }, (_, byte) => {
  let crc = byte << 8;
  for (let bit = 0; bit < 8; bit++) crc = (crc & 0x8000 ? (crc << 1) ^ 0x1021 : crc << 1) & 0xffff;
  return crc;
});

function crc16(bytes: Buffer): number {
  let crc = 0;
  for (const byte of bytes) crc = ((crc << 8) & 0xffff) ^ (TABLE[(crc >> 8) ^ byte] as number);
  return crc;
}

/**
 * What of a key is hashed: what stands between its first `{` and the next `}`, unless that is nothing; else all of it.
 */
function hashedPart(key: Buffer): Buffer {
  const open = key.indexOf(OPEN);
  const close = open === -1 ? -1 : key.indexOf(CLOSE, open + 1);
  return close > open + 1 ? key.subarray(open + 1, close) : key;
}

/** The slot of a key, 0 to 16383. */
export const slotOfKey = (key: Buffer): number => crc16(hashedPart(key)) % SLOTS;

/** `hashedPart` of text. (Braces are single bytes in UTF-8, and part of nothing else.) */
export function hashTag(key: string): string {
  const open = key.indexOf("{");
  const close = open === -1 ? -1 : key.indexOf("}", open + 1);
  return close > open + 1 ? key.slice(open + 1, close) : key;
}

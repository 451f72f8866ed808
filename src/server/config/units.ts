/** Durations and sizes as people write them ("15s", "1MiB"), and back. */

const DURATION_MS: Readonly<Record<string, number>> = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 };
const SIZE_BYTES: Readonly<Record<string, number>> = {
  B: 1,
  kB: 1_000,
  MB: 1_000_000,
  GB: 1_000_000_000,
  KiB: 1_024,
  MiB: 1_048_576,
  GiB: 1_073_741_824,
};

const QUANTITY = /^(\d{1,15}(?:\.\d{1,9})?)\s*([A-Za-z]*)$/;

function parse(raw: unknown, units: Readonly<Record<string, number>>): number | undefined {
  if (typeof raw === "number") return Number.isSafeInteger(raw) && raw >= 0 ? raw : undefined;
  if (typeof raw !== "string") return undefined;
  const match = QUANTITY.exec(raw.trim());
  if (!match) return undefined;
  const [, digits = "", unit = ""] = match;
  const factor = unit === "" ? 1 : Object.hasOwn(units, unit) ? units[unit] : undefined;
  if (factor === undefined) return undefined;
  const value = Number(digits) * factor;
  const whole = Math.round(value);
  // "0.1s" is 100 ms although 0.1 is not exact; "1.5" ms and "0.3B" are nothing.
  return Number.isSafeInteger(whole) && Math.abs(value - whole) < 1e-6 * Math.max(1, factor) ? whole : undefined;
}

/** "500ms", "15s", "1.5m", "24h", "7d", or a whole number of milliseconds. Undefined: not a duration. */
export function parseDurationMs(raw: unknown): number | undefined {
  return parse(raw, DURATION_MS);
}

/** "512", "64KiB", "1MiB", "1MB", or a whole number of bytes. Undefined: not a size. */
export function parseBytes(raw: unknown): number | undefined {
  return parse(raw, SIZE_BYTES);
}

function format(value: number, units: readonly (readonly [string, number])[], base: string): string {
  for (const [unit, factor] of units) if (value > 0 && value % factor === 0) return `${value / factor}${unit}`;
  return `${value}${base}`;
}

/** The shortest exact way to write it: 15000 is "15s", 1500 is "1500ms". */
export function formatDurationMs(ms: number): string {
  return format(
    ms,
    [
      ["h", 3_600_000],
      ["m", 60_000],
      ["s", 1_000],
    ],
    "ms",
  );
}

/** The shortest exact way to write it: 4096 is "4KiB", 1000 is "1000B". */
export function formatBytes(bytes: number): string {
  return format(
    bytes,
    [
      ["GiB", 1_073_741_824],
      ["MiB", 1_048_576],
      ["KiB", 1_024],
    ],
    "B",
  );
}

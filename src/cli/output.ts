/** How things look on a terminal, and as JSON. */

/**
 * Text that came from a client, made harmless: names and owners may contain anything, and a terminal obeys control
 * characters.
 */
export function plain(text: string): string {
  return text.replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Surrogate}]/gu, (c) => `\\u{${c.codePointAt(0)!.toString(16)}}`);
}

/** "340ms", "12.3s", "4m20s", "3h2m", "5d1h". */
export function duration(ms: number): string {
  if (ms < 1_000) return `${Math.max(0, Math.round(ms))}ms`;
  if (ms < 59_950) return `${(ms / 1_000).toFixed(1)}s`;
  const seconds = Math.round(ms / 1_000);
  const minutes = Math.floor(seconds / 60);
  const hours = Math.floor(minutes / 60);
  const days = Math.floor(hours / 24);
  if (days > 0) return pair(days, "d", hours % 24, "h");
  if (hours > 0) return pair(hours, "h", minutes % 60, "m");
  return pair(minutes, "m", seconds % 60, "s");
}

const pair = (a: number, unitA: string, b: number, unitB: string) =>
  b === 0 ? `${a}${unitA}` : `${a}${unitA}${b}${unitB}`;

/** "512 B", "1.5 MiB". */
export function size(bytes: number): string {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let value = bytes;
  let unit = 0;
  while (value >= 1_024 && unit < units.length - 1) {
    value /= 1_024;
    unit++;
  }
  return `${unit === 0 ? value : value.toFixed(1)} ${units[unit]}`;
}

/** "1 lock", "2 locks". */
export const plural = (n: number, word: string) => `${n} ${word}${n === 1 ? "" : "s"}`;

const width = (text: string) => [...text].length;

/** Aligned columns; those whose heading ends in ">" are aligned to the right. */
export function table(headings: readonly string[], rows: readonly (readonly string[])[]): string {
  const right = headings.map((heading) => heading.endsWith(">"));
  const lines = [headings.map((heading) => heading.replace(/>$/, "")), ...rows];
  const widths = headings.map((_, i) => lines.reduce((widest, line) => Math.max(widest, width(line[i] ?? "")), 0));
  const cell = (text: string, i: number) => {
    const padding = " ".repeat(widths[i]! - width(text));
    return right[i] ? padding + text : text + padding;
  };
  return lines.map((line) => `${line.map(cell).join("  ").trimEnd()}\n`).join("");
}

/** Name and value in two columns. */
export function list(rows: readonly (readonly [string, string])[]): string {
  const widest = rows.reduce((widest, [name]) => Math.max(widest, width(name)), 0);
  return rows.map(([name, value]) => `${name.padEnd(widest)}  ${value}\n`).join("");
}

/** One JSON document. */
export function json(value: unknown): string {
  return `${JSON.stringify(value, null, 2)}\n`;
}

export const base64 = (bytes: Uint8Array) => Buffer.from(bytes).toString("base64");

export function print(text: string): void {
  process.stdout.write(text);
}

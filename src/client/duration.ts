import { invalid } from "./errors.js";

/**
 * A length of time: whole milliseconds, or a number with its unit.
 *
 * @example
 * const a: Duration = 1500; // ms
 * const b: Duration = "1.5s";
 */
export type Duration = number | `${number}${"ms" | "s" | "m" | "h"}`;

const PATTERN = /^(\d{1,15}(?:\.\d{1,9})?)(ms|s|m|h)$/;
const UNIT_MS: Readonly<Record<string, number>> = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000 };

/** The duration in whole milliseconds. `what` names it in the error. Throws INVALID. */
export function durationMs(duration: Duration, what: string): number {
  if (typeof duration === "number") {
    if (Number.isSafeInteger(duration) && duration >= 0) return duration;
  } else if (typeof duration === "string") {
    const match = PATTERN.exec(duration);
    const exact = match ? Number(match[1]) * (UNIT_MS[match[2] as string] as number) : Number.NaN;
    const whole = Math.round(exact);
    // "0.1s" is 100 ms although 0.1 has no exact binary form; "0.5ms" is nothing.
    if (Number.isSafeInteger(whole) && Math.abs(exact - whole) < 1e-3) return whole;
  }
  throw invalid(
    `${what} must be whole milliseconds or text such as "500ms", "15s", "1.5m", "2h", not ${show(duration)}`,
  );
}

/** As people read it: "1500 ms", "15 s". */
export function formatMs(ms: number): string {
  return ms >= 1_000 && ms % 1_000 === 0 ? `${ms / 1_000} s` : `${Math.round(ms)} ms`;
}

/** A value in an error message: short, and never a throw. */
export function show(value: unknown): string {
  if (typeof value === "string") return JSON.stringify(value.length > 80 ? `${value.slice(0, 80)}…` : value);
  if (typeof value === "bigint") return `${value}n`;
  return typeof value === "object" && value !== null ? "an object" : String(value);
}

/** How option and argument texts become values. Each throws commander's error, which names the option. */
import { InvalidArgumentError } from "commander";
import { parseDurationMs } from "../server/config/units.js";

/** From 0 up to 2^53 - 1. */
export function wholeNumber(text: string): number {
  const value = Number(text);
  if (!/^\d{1,16}$/.test(text) || !Number.isSafeInteger(value))
    throw new InvalidArgumentError("It is not a whole number.");
  return value;
}

export function positive(text: string): number {
  if (!/^\d{1,16}$/.test(text) || !(Number(text) > 0) || !Number.isSafeInteger(Number(text)))
    throw new InvalidArgumentError("It is not a whole number above zero.");
  return Number(text);
}

/** Milliseconds. */
export function duration(text: string): number {
  const ms = parseDurationMs(text);
  if (ms === undefined) throw new InvalidArgumentError('It is not a duration such as "500ms", "15s", "5m".');
  return ms;
}

export function positiveDuration(text: string): number {
  const ms = duration(text);
  if (ms === 0) throw new InvalidArgumentError("It must be longer than 0.");
  return ms;
}

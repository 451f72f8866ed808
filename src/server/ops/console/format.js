// Numbers, durations and bytes for people.

const plain = new Intl.NumberFormat("en");

export const count = (n) => plain.format(n);

/** "340 ms", "4.2 s", "3 m 20 s", "5 h 12 m", "3 d 4 h" */
export function duration(ms) {
  if (ms < 1_000) return `${Math.round(ms)} ms`;
  const seconds = ms / 1_000;
  if (seconds < 10) return `${(Math.floor(seconds * 10) / 10).toFixed(1)} s`;
  const [s, m, hours] = [seconds, seconds / 60, seconds / 3_600].map(Math.floor);
  if (s < 60) return `${s} s`;
  if (m < 60) return `${m} m ${s % 60} s`;
  return hours < 24 ? `${hours} h ${m % 60} m` : `${Math.floor(hours / 24)} d ${hours % 24} h`;
}

export const rate = (perSecond) => `${perSecond < 10 ? perSecond.toFixed(1) : count(Math.round(perSecond))}/s`;

export function size(bytes) {
  if (bytes < 1_024) return `${bytes} B`;
  const mib = bytes / 1_048_576;
  return mib < 1 ? `${(bytes / 1_024).toFixed(1)} KiB` : `${mib.toFixed(1)} MiB`;
}

/** "14:03:07" */
export const timeOfDay = (ms) => new Date(ms).toTimeString().slice(0, 8);

const SHOWN_MAX = 300;

/** Metadata comes as base64. What is no text is told by its size. */
export function metadata(base64) {
  if (base64 === "") return "";
  const bytes = Uint8Array.from(atob(base64), (unit) => unit.charCodeAt(0));
  try {
    const text = new TextDecoder("utf-8", { fatal: true }).decode(bytes);
    return text.length > SHOWN_MAX ? `${text.slice(0, SHOWN_MAX)}…` : text;
  } catch {
    return `${bytes.length} bytes`;
  }
}

/** "exclusive", "shared", "semaphore 2 of 5" */
export const mode = ({ mode, permits, permitLimit }) =>
  mode === "semaphore" ? `semaphore ${permits} of ${permitLimit}` : mode;

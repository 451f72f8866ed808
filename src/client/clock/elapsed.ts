/**
 * Time as the client decides by it: elapsed milliseconds that no change of the wall clock moves and that a machine's
 * sleep does not stop.
 *
 * On Linux the monotonic clock stands still while the machine sleeps; the uptime does not. So
 *
 *     elapsed = monotonic + max(0, growth of (uptime - monotonic) since the start - 20 ms)
 *
 * where the 20 ms cover the coarseness of the uptime, which counts in steps of 10 ms. On macOS and Windows the monotonic
 * clock itself counts sleep.
 */
import { uptime } from "node:os";

/** A timer that was set. */
export interface Timer {
  /** It will not fire. Safe to repeat. */
  cancel(): void;
}

/** Everything that the client knows of time. */
export interface TimeSource {
  /** Elapsed milliseconds since some moment in the past, with fractions. Never goes backwards. */
  nowMs(): number;
  /** Calls `f` once after the delay or later. Only a timer with `keepAlive` keeps the process from ending. */
  setTimer(delayMs: number, f: () => void, keepAlive?: boolean): Timer;
  /** Calls `f` at the end of this turn of the event loop: when everything that is ready now has been done. */
  soon(f: () => void): void;
}

/**
 * How much running time may pass before the uptime, which costs a system call of several microseconds, is read again: so
 * long after it wakes may a machine's sleep go unnoticed. The safety margin of a belief is far larger.
 */
const UPTIME_AGE_MS_MAX = 5;
const UPTIME_TOLERANCE_MS = 20;

/** A function that returns elapsed milliseconds. `readUptimeMs` is null where the monotonic clock counts sleep. */
export function elapsedClock(readMonotonicMs: () => number, readUptimeMs: (() => number) | null): () => number {
  /** Two readings that were taken together: if the process was held up between them, it is tried again. */
  const gap = (): number => {
    let best = Number.POSITIVE_INFINITY;
    let narrowest = Number.POSITIVE_INFINITY;
    for (let i = 0; i < 3 && narrowest > 1 && readUptimeMs; i++) {
      const before = readMonotonicMs();
      const up = readUptimeMs();
      const width = readMonotonicMs() - before;
      if (width < narrowest) {
        narrowest = width;
        best = up - before;
      }
    }
    return best;
  };
  const gapAtStart = gap();
  let readAtMs = readMonotonicMs();
  let sleptMs = 0;
  let lastMs = Number.NEGATIVE_INFINITY;
  return () => {
    const monotonicMs = readMonotonicMs();
    if (readUptimeMs && monotonicMs - readAtMs >= UPTIME_AGE_MS_MAX) {
      readAtMs = monotonicMs;
      sleptMs = Math.max(0, gap() - gapAtStart - UPTIME_TOLERANCE_MS);
    }
    const elapsedMs = monotonicMs + sleptMs;
    if (elapsedMs > lastMs) lastMs = elapsedMs;
    return lastMs;
  };
}

/** The longest delay that Node's timers take. */
const TIMER_MS_MAX = 2 ** 31 - 1;

/** The time of this process. */
export function systemTime(): TimeSource {
  const nowMs = elapsedClock(() => performance.now(), process.platform === "linux" ? () => uptime() * 1_000 : null);
  return {
    nowMs,
    setTimer(delayMs, f, keepAlive = false) {
      const handle = setTimeout(f, Math.min(Math.max(1, Math.ceil(delayMs)), TIMER_MS_MAX));
      if (!keepAlive) handle.unref();
      return { cancel: () => clearTimeout(handle) };
    },
    soon: (f) => {
      setImmediate(f);
    },
  };
}

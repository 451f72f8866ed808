/** Time as it comes from outside, so that a test can move it. */
export interface Timing {
  /** Milliseconds on a clock that never goes back. */
  nowMs(): number;
  /** Calls a function once, after a time. Returns what takes the call back. */
  after(delayMs: number, call: () => void): () => void;
}

export const systemTiming: Timing = {
  nowMs: () => performance.now(),
  after(delayMs, call) {
    const timer = setTimeout(call, delayMs);
    return () => clearTimeout(timer);
  },
};

/**
 * Those who pause until a signal is aborted. Node warns of a leak when a signal has more than ten listeners, and as
 * many messages may be tried again at a time: so each signal has one.
 */
const sleepers = new WeakMap<AbortSignal, Set<() => void>>();

function wakeOnAbort(signal: AbortSignal): Set<() => void> {
  const known = sleepers.get(signal);
  if (known) return known;
  const waking = new Set<() => void>();
  sleepers.set(signal, waking);
  const wakeAll = () => {
    for (const wake of [...waking]) wake();
  };
  signal.addEventListener("abort", wakeAll, { once: true });
  return waking;
}

/** Resolves after a time, or when the signal is aborted, whichever comes first. */
export function pause(timing: Timing, delayMs: number, signal?: AbortSignal): Promise<void> {
  if (signal?.aborted) return Promise.resolve();
  return new Promise((resolve) => {
    const waking = signal && wakeOnAbort(signal);
    const wake = () => {
      waking?.delete(wake);
      cancel();
      resolve();
    };
    const cancel = timing.after(delayMs, wake);
    waking?.add(wake);
  });
}

const PAUSE_MS_MAX = 30_000;

/** The pause after so many failed attempts: it doubles, up to half a minute. */
export const pauseMs = (retryMs: number, attempts: number): number =>
  Math.min(retryMs * 2 ** Math.min(attempts - 1, 30), Math.max(retryMs, PAUSE_MS_MAX));

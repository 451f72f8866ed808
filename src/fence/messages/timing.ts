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

/** Resolves after a time, or when the signal is aborted, whichever comes first. */
export function pause(timing: Timing, delayMs: number, signal?: AbortSignal): Promise<void> {
  if (signal?.aborted) return Promise.resolve();
  return new Promise((resolve) => {
    const cancel = timing.after(delayMs, end);
    function end(): void {
      signal?.removeEventListener("abort", end);
      cancel();
      resolve();
    }
    signal?.addEventListener("abort", end, { once: true });
  });
}

const PAUSE_MS_MAX = 30_000;

/** The pause after so many failed attempts: it doubles, up to half a minute. */
export const pauseMs = (retryMs: number, attempts: number): number =>
  Math.min(retryMs * 2 ** Math.min(attempts - 1, 30), Math.max(retryMs, PAUSE_MS_MAX));

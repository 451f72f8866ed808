/**
 * Measures loops that run without a break: some time to warm up, then several windows of equal length. What ends in a
 * window is counted in it, so that nothing is lost or gained at the start and the end of a loop.
 */
import { setTimeout as delay } from "node:timers/promises";
import { build } from "hdr-histogram-js";

const PERCENTILES = [50, 90, 99, 99.9];
const newHistogram = () =>
  build({ lowestDiscernibleValue: 1, highestTrackableValue: 60_000_000, numberOfSignificantValueDigits: 3 });

class Window {
  operations = 0;
  #histograms = new Map();
  #startedAt = performance.now();
  #cpu = process.cpuUsage();

  /** @param {string} what @param {number} ms */
  record(what, ms) {
    const histogram = this.#histograms.get(what) ?? newHistogram();
    this.#histograms.set(what, histogram);
    histogram.recordValue(Math.max(1, Math.round(ms * 1_000)));
  }

  result() {
    const seconds = (performance.now() - this.#startedAt) / 1_000;
    const { user, system } = process.cpuUsage(this.#cpu);
    const percentilesMs = (histogram) =>
      Object.fromEntries(PERCENTILES.map((p) => [`p${p}`, histogram.getValueAtPercentile(p) / 1_000]));
    const latencyMs = Object.fromEntries([...this.#histograms].map(([what, h]) => [what, percentilesMs(h)]));
    return { perSecond: this.operations / seconds, clientCpuUs: (user + system) / this.operations, latencyMs };
  }
}

/**
 * @param {{ warmUpMs: number, windowMs: number, windows: number }} plan
 * @param {(meter: { running: boolean, window: Window }) => Promise<void>[]} start starts the loops; each must end soon
 *   after `running` has become false
 */
export async function measure({ warmUpMs, windowMs, windows }, start) {
  const meter = { running: true, window: new Window() };
  const loops = start(meter);
  const failed = Promise.all(loops); // settles early only if a loop fails
  const results = [];
  let operations = 0; // warming up included
  await Promise.race([delay(warmUpMs), failed]);
  for (let i = 0; i < windows; i++) {
    operations += meter.window.operations;
    meter.window = new Window();
    await Promise.race([delay(windowMs), failed]);
    results.push(meter.window.result());
  }
  meter.running = false;
  await failed;
  operations += meter.window.operations;
  return { operations, windows: results };
}

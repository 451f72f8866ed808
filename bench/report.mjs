/** Medians, and tables for people. */

export function median(values) {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

/** The median of each figure over all windows. */
export function summarise(windows) {
  const rates = windows.map((window) => window.perSecond);
  const perSecond = median(rates);
  const latencyMs = {};
  for (const [what, percentiles] of Object.entries(windows[0].latencyMs)) {
    latencyMs[what] = {};
    for (const p of Object.keys(percentiles)) latencyMs[what][p] = median(windows.map((w) => w.latencyMs[what][p]));
  }
  const clientCpuUs = median(windows.map((window) => window.clientCpuUs));
  return { perSecond, spread: (Math.max(...rates) - Math.min(...rates)) / perSecond, clientCpuUs, latencyMs };
}

export const whole = (n) => Math.round(n).toLocaleString("en");
export const ms = (n) => (n >= 100 ? n.toFixed(0) : n.toPrecision(3));
export const ratio = (n) => n.toFixed(2);
export const percent = (n) => `${Math.round(n * 100)}%`;

/** @param {string[]} headings @param {string[][]} rows @param {number} left the first column that is text */
export function printTable(headings, rows, left = headings.length) {
  const all = [headings, ...rows];
  const widths = headings.map((_, i) => Math.max(...all.map((row) => row[i].length)));
  const cell = (text, i) => (i < left ? text.padStart(widths[i]) : text);
  for (const row of all) console.log(row.map(cell).join("  "));
}

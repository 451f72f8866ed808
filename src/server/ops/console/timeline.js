// A picture of who held a lock when: one bar for each hold, from its grant to its end, and before it the wait. Holds that
// overlap (shared ones, semaphores) lie below each other.

import { s } from "./dom.js";
import { duration, timeOfDay } from "./format.js";

const WIDTH = 1_000;
const LANE = 26;
const LANES_MAX = 12;
const BARS_MAX = 120;
const TICKS = 5;

/** The holds in a timeline's events and among the present holders, the oldest first; `endMs` null: it goes on. */
export function holdsOf({ events, nowMs }, holders) {
  const holds = new Map();
  for (const event of events) {
    if (event.atMs === 0 || event.token === undefined) continue;
    const { token, owner = "", mode, atMs } = event;
    if (event.kind === "granted") {
      if (event.transferredFrom !== 0) end(holds, event.transferredFrom, atMs, "transferred");
      holds.set(token, { token, owner, mode, startMs: atMs, waitedMs: event.waitedMs, endMs: null, end: "" });
    } else if (event.kind === "holdEnded") {
      const before = { token, owner, mode, startMs: atMs - event.heldMs, waitedMs: 0, endMs: null, end: "" };
      if (!holds.has(token)) holds.set(token, before); // granted before the history begins
      end(holds, token, atMs, event.end);
    }
  }
  for (const { token, owner, mode, heldMs } of holders) {
    if (holds.has(token)) continue;
    holds.set(token, { token, owner, mode, startMs: nowMs - heldMs, waitedMs: 0, endMs: null, end: "" });
  }
  return [...holds.values()].sort((a, b) => a.startMs - b.startMs).slice(-BARS_MAX);
}

function end(holds, token, atMs, how) {
  const hold = holds.get(token);
  if (hold) Object.assign(hold, { endMs: atMs, end: how });
}

export function picture(holds, nowMs) {
  const first = Math.min(...holds.map(({ startMs, waitedMs }) => startMs - waitedMs));
  const span = Math.max(nowMs - first, 1_000);
  const x = (ms) => Math.round(((ms - first) / span) * WIDTH * 10) / 10;
  const lanes = [];
  const bars = holds.map((hold) => bar(hold, laneOf(lanes, hold, nowMs), x, nowMs));
  const height = lanes.length * LANE + 24;
  const ticks = Array.from({ length: TICKS }, (_, i) => tick(first + (span * i) / (TICKS - 1), i, x, height));
  const label = `Timeline: ${holds.length} holds in ${duration(span)}`;
  return s(
    "svg",
    { class: "timeline", viewBox: `0 0 ${WIDTH} ${height}`, role: "img", "aria-label": label },
    ticks,
    bars,
  );
}

/** The first lane that is free by then. */
function laneOf(lanes, { startMs, endMs }, nowMs) {
  const free = lanes.findIndex((untilMs) => untilMs <= startMs);
  const lane = free === -1 ? Math.min(lanes.length, LANES_MAX - 1) : free;
  lanes[lane] = Math.max(lanes[lane] ?? 0, endMs ?? nowMs);
  return lane;
}

function bar(hold, lane, x, nowMs) {
  const { token, owner, startMs, waitedMs, endMs, end } = hold;
  const y = lane * LANE + 6;
  const left = x(startMs);
  const width = Math.max(x(endMs ?? nowMs) - left, 2);
  const how = endMs === null ? "held now" : `${end} after ${duration(endMs - startMs)}`;
  const text = `token ${token}, ${owner || "owner not known"}: ${how}, waited ${duration(waitedMs)}`;
  return s(
    "g",
    {},
    s("title", {}, text),
    waitedMs > 0 && s("line", { class: "wait", x1: x(startMs - waitedMs), x2: left, y1: y + 7, y2: y + 7 }),
    s("rect", { class: `hold ${endMs === null ? "now" : end}`, x: left, y, width, height: 14, rx: 3 }),
  );
}

function tick(ms, i, x, height) {
  const at = x(ms);
  const anchor = i === 0 ? "start" : i === TICKS - 1 ? "end" : "middle";
  return [
    s("line", { class: "axis", x1: at, x2: at, y1: 0, y2: height - 16 }),
    s("text", { x: at, y: height - 3, "text-anchor": anchor }, timeOfDay(ms)),
  ];
}

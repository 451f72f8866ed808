// Whether the server serves, how much it does, and what takes long.

import { get } from "../api.js";
import { foreign, h, lockLink, render } from "../dom.js";
import { count, duration, rate, size } from "../format.js";

const TOP = 8;

export function overview(root) {
  let before = null;
  return {
    title: "Overview",
    target: { prefix: "" },
    async refresh(signal) {
      const [status, top] = await Promise.all([
        get("status", {}, signal),
        // Those who may not see all locks still see how the server is.
        get("top", { limit: TOP }, signal).catch((error) => (signal.aborted ? Promise.reject(error) : { error })),
      ]);
      const nowMs = performance.now();
      const grants = grantRate(before, status, nowMs);
      if (before === null || nowMs - before.atMs > 1_500) before = { atMs: nowMs, counts: status.counts };
      before.rate = grants;
      render(root, [h("h1", {}, "Overview"), alerts(status), tiles(status, grants), tops(top)]);
    },
  };
}

function grantRate(before, { counts }, nowMs) {
  if (before === null || before.counts === null || counts === null) return 0;
  const seconds = (nowMs - before.atMs) / 1_000;
  if (seconds < 1) return before.rate ?? 0;
  return Math.max(0, counts.lastToken - before.counts.lastToken) / seconds;
}

function alerts({ serving, notServingReason, clocks }) {
  const found = [];
  if (!serving) found.push(h("p", { class: "alert", role: "alert" }, `Not serving: ${notServingReason}`));
  if (clocks.skewed > 0) {
    found.push(h("p", { class: "alert warn" }, `The wall clocks of ${count(clocks.skewed)} clients are off.`));
  }
  if (clocks.serverAheadMs !== 0) {
    found.push(
      h(
        "p",
        { class: "alert warn" },
        `This server's wall clock is probably off by ${duration(Math.abs(clocks.serverAheadMs))}.`,
      ),
    );
  }
  if (found.length === 0) found.push(h("p", { class: "alert good" }, "Serving."));
  return found;
}

function tiles(status, grants) {
  const { counts, watchers, uptimeMs, commandsInFlight, journalLogBytes, store, version } = status;
  const tile = (name, value) => h("div", { class: "tile" }, h("dt", {}, name), h("dd", {}, value));
  return h(
    "dl",
    { class: "tiles" },
    counts && [
      tile("Locks", count(counts.locks)),
      tile("Holds", count(counts.holds)),
      tile("Waiters", count(counts.waiters)),
      tile("Grants", rate(grants)),
      tile("Last token", count(counts.lastToken)),
      tile("Leases", count(counts.leases)),
      tile("Sessions", count(counts.sessions)),
    ],
    tile("Watchers", count(watchers)),
    tile("In flight", count(commandsInFlight)),
    tile(`Journal (${store})`, size(journalLogBytes)),
    tile("Up for", duration(uptimeMs)),
    tile("Version", version),
  );
}

function tops(top) {
  if (top.error) return h("p", { class: "quiet" }, `Hot locks and long waits are not shown: ${top.error.message}`);
  const { hottest, longestHolds, longestWaits } = top;
  return h(
    "div",
    { class: "columns" },
    panel(
      "Hottest locks",
      "Grants",
      hottest.map(({ name, grantsPerSecond }) => [name, null, rate(grantsPerSecond)]),
    ),
    panel(
      "Longest holds",
      "Held",
      longestHolds.map(({ name, holder }) => [name, holder.owner, duration(holder.heldMs)]),
    ),
    panel(
      "Longest waits",
      "Waited",
      longestWaits.map(({ name, waiter }) => [name, waiter.owner, duration(waiter.waitedMs)]),
    ),
  );
}

function panel(title, what, rows) {
  const body = rows.map(([name, owner, figure]) =>
    h(
      "tr",
      {},
      h("td", {}, lockLink(name), owner && h("div", { class: "quiet" }, foreign(owner))),
      h("td", { class: "number" }, figure),
    ),
  );
  const table = h(
    "table",
    {},
    h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "Lock"), h("th", { scope: "col", class: "number" }, what))),
    h("tbody", {}, body),
  );
  return h(
    "section",
    { class: "panel" },
    h("h2", {}, title),
    rows.length === 0 ? h("p", { class: "quiet" }, "None.") : table,
  );
}

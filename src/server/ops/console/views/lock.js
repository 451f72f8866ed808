// One lock: who holds it, who waits, who blocks whom, what has happened to it; and taking it away.

import { get, lockPath } from "../api.js";
import { blockerTree } from "../blockers.js";
import { foreign, h, render } from "../dom.js";
import { askForce } from "../force.js";
import { count, duration, metadata, mode, timeOfDay } from "../format.js";
import { holdsOf, picture } from "../timeline.js";

const EVENTS_SHOWN = 30;

export function lock(root, parameters, { refresh }) {
  const name = parameters.get("name") ?? "";
  let told = "";
  root.addEventListener("click", async ({ target }) => {
    if (target.dataset?.action !== "force") return;
    told = (await askForce(name, Number(target.dataset.token))) ?? told;
    refresh();
  });
  return {
    title: name,
    target: { name },
    back: () => history.back(),
    async refresh(signal) {
      const [{ lock: found }, past] = await Promise.all([
        get(lockPath(name), {}, signal),
        get(lockPath(name, "timeline"), {}, signal),
      ]);
      render(root, [
        h("h1", {}, foreign(name)),
        h("p", { class: "alert good", role: "status", hidden: told === "" }, told),
        facts(found),
        holders(found),
        waiters(found),
        timeline(past, found),
      ]);
    },
  };
}

function facts({ holdersTotal, waitersTotal, reserved, delayRemainingMs }) {
  const state =
    holdersTotal > 0 ? `Held by ${count(holdersTotal)}` : reserved ? "Reserved for the first in the queue" : "Free";
  const delay = delayRemainingMs > 0 ? `; granted to nobody for ${duration(delayRemainingMs)}` : "";
  return h("p", {}, `${state}${delay}; ${count(waitersTotal)} waiting.`);
}

const section = (title, ...children) => h("section", { class: "panel" }, h("h2", {}, title), children);

const table = (label, columns, rows) =>
  h(
    "table",
    { "aria-label": label },
    h(
      "thead",
      {},
      h(
        "tr",
        {},
        columns.map((column) => h("th", { scope: "col" }, column)),
      ),
    ),
    h("tbody", {}, rows),
  );

function holders({ holders, holdersTotal }) {
  if (holders.length === 0) return section("Holders", h("p", { class: "quiet" }, "Nobody holds it."));
  const columns = ["Token", "Owner", "Mode", "Held", "Lease left", "Value", "Lease", ""];
  const rows = holders.map((holder) =>
    h(
      "tr",
      { "data-key": holder.token },
      h("td", { class: "mono" }, holder.token),
      h("td", {}, foreign(holder.owner)),
      h("td", {}, mode(holder), holder.revoking && h("span", { class: "badge revoking" }, "being taken away")),
      h(
        "td",
        {},
        duration(holder.heldMs),
        holder.maxHoldRemainingMs > 0 &&
          h("div", { class: "quiet" }, `${duration(holder.maxHoldRemainingMs)} left at most`),
      ),
      h("td", {}, duration(holder.leaseRemainingMs)),
      h("td", {}, foreign(metadata(holder.metadata))),
      h("td", { class: "mono" }, holder.lease),
      h(
        "td",
        {},
        h(
          "button",
          { type: "button", class: "danger", "data-action": "force", "data-token": holder.token },
          "Force release…",
        ),
      ),
    ),
  );
  const all =
    holdersTotal > 1 &&
    h(
      "p",
      {},
      h(
        "button",
        { type: "button", class: "danger", "data-action": "force", "data-token": "0" },
        `Force release all ${count(holdersTotal)}…`,
      ),
    );
  return section("Holders", table("Holders", columns, rows), rest(holders.length, holdersTotal), all);
}

function waiters(lock) {
  const { waiters, waitersTotal } = lock;
  if (waiters.length === 0) return section("Queue", h("p", { class: "quiet" }, "Nobody waits."));
  const rows = waiters.map((waiter) =>
    h(
      "tr",
      { "data-key": waiter.ticket },
      h("td", {}, count(waiter.position)),
      h("td", {}, foreign(waiter.owner)),
      h("td", {}, mode(waiter)),
      h("td", {}, duration(waiter.waitedMs)),
      h("td", { class: "mono" }, waiter.ticket),
      h("td", {}, waiter.attached ? "waiting" : "polls, or is away"),
    ),
  );
  return [
    section(
      "Queue",
      table("Queue", ["Position", "Owner", "Mode", "Waited", "Ticket", "State"], rows),
      rest(waiters.length, waitersTotal),
    ),
    section("Who blocks whom", blockerTree(lock)),
  ];
}

const rest = (shown, total) =>
  total > shown && h("p", { class: "quiet" }, `${count(total - shown)} more are not shown.`);

function timeline(past, lock) {
  const holds = holdsOf(past, lock.holders);
  const since = past.sinceMs > 0 ? timeOfDay(past.sinceMs) : "the console, or another watcher, began to watch";
  const note = past.cut ? "Only the last events are shown." : `Nothing is known from before ${since}.`;
  return section(
    "Timeline",
    holds.length === 0 ? h("p", { class: "quiet" }, "No grants yet.") : picture(holds, past.nowMs),
    h("p", { class: "quiet" }, note),
    past.events.length > 0 && happened(past.events),
  );
}

const TEXTS = {
  queued: "queued",
  dequeued: "left the queue",
  granted: "granted",
  downgraded: "downgraded",
  updated: "value replaced",
  revoking: "being taken away",
};

function happened(events) {
  const rows = events
    .slice(-EVENTS_SHOWN)
    .reverse()
    .map((event) =>
      h(
        "tr",
        { "data-key": `${event.timestamp} ${event.kind} ${event.token ?? ""}` },
        h("td", { class: "mono" }, event.atMs > 0 ? timeOfDay(event.atMs) : ""),
        h(
          "td",
          {},
          h(
            "span",
            { class: `badge ${event.end ?? (event.kind === "granted" ? "held" : event.kind)}` },
            event.end ?? TEXTS[event.kind],
          ),
        ),
        h("td", { class: "mono" }, event.token ?? event.ticket),
        h("td", {}, event.owner && foreign(event.owner), event.message && [" ", foreign(event.message)]),
        h("td", {}, event.heldMs === undefined ? "" : `held ${duration(event.heldMs)}`),
      ),
    );
  return table("Events", ["Time", "Event", "Token or ticket", "Owner", ""], rows);
}

// Leases, by their ids for display, and how many sessions there are.

import { get } from "../api.js";
import { foreign, h, render } from "../dom.js";
import { count, duration } from "../format.js";
import { Rows } from "../rows.js";
import { listenToPages, PAGE, Pages, pageBar } from "./pages.js";

export function leases(root, _parameters, { refresh }) {
  const pages = new Pages();
  const rows = new Rows(root);
  let next = "";
  listenToPages(root, pages, () => next, refresh);
  return {
    title: "Leases and sessions",
    target: { prefix: "" },
    rows,
    async refresh(signal) {
      const [page, { counts }] = await Promise.all([
        get("leases", { after: pages.after, limit: PAGE }, signal),
        get("status", {}, signal),
      ]);
      next = page.next;
      const sum = counts && `${count(counts.sessions)} sessions; ${count(counts.leases)} leases.`;
      render(root, [
        h("h1", {}, "Leases and sessions"),
        h("p", {}, sum),
        table(page.leases, rows),
        pageBar(pages, next),
      ]);
    },
  };
}

function table(leases, rows) {
  if (leases.length === 0) return h("p", { class: "panel quiet" }, "No leases.");
  const columns = ["Lease", "Owner", "TTL", "Left", "Holds", "Waits"];
  return h(
    "div",
    { class: "panel" },
    h(
      "table",
      { "aria-label": "Leases" },
      h(
        "thead",
        {},
        h(
          "tr",
          {},
          columns.map((column) => h("th", { scope: "col" }, column)),
        ),
      ),
      h(
        "tbody",
        {},
        leases.map((lease) => row(lease, rows)),
      ),
    ),
  );
}

const row = ({ id, owner, ttlMs, remainingMs, holds, waits, restartExtensionMs }, rows) =>
  h(
    "tr",
    { "data-key": id, "aria-selected": String(rows.isSelected(id)) },
    h("td", { class: "mono" }, id),
    h("td", {}, foreign(owner)),
    h("td", {}, duration(ttlMs)),
    h(
      "td",
      {},
      duration(remainingMs),
      restartExtensionMs > 0 && h("span", { class: "quiet" }, " (extended by a restart)"),
    ),
    h("td", {}, count(holds)),
    h("td", {}, count(waits)),
  );

// The clients that are connected, and leases, by their ids for display.

import { get } from "../api.js";
import { foreign, h, render } from "../dom.js";
import { count, duration } from "../format.js";
import { Rows } from "../rows.js";
import { listenToPages, PAGE, Pages, pageBar } from "./pages.js";

/** Rows of those who are connected. */
const SESSIONS = 100;

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
      const [page, { counts }, { sessions }] = await Promise.all([
        get("leases", { after: pages.after, limit: PAGE }, signal),
        get("status", {}, signal),
        get("sessions", { limit: SESSIONS }, signal),
      ]);
      next = page.next;
      const sum = counts && `${count(counts.sessions)} sessions; ${count(counts.leases)} leases.`;
      render(root, [
        h("h1", {}, "Leases and sessions"),
        h("p", {}, sum),
        h("h2", {}, "Connected"),
        sessions.length === 0 ? h("p", { class: "panel quiet" }, "Nobody is connected.") : sessionTable(sessions),
        sessions.length === SESSIONS && h("p", { class: "quiet" }, `The last ${SESSIONS} that came.`),
        h("h2", {}, "Leases"),
        table(page.leases, rows),
        pageBar(pages, next),
      ]);
    },
  };
}

function table(leases, rows) {
  if (leases.length === 0) return h("p", { class: "panel quiet" }, "No leases.");
  const columns = ["Lease", "Owner", "TTL", "Left", "Holds", "Waits"];
  return panel(
    "Leases",
    columns,
    leases.map((lease) => row(lease, rows)),
  );
}

const sessionTable = (sessions) =>
  panel("Sessions", ["Owner", "Principal", "Client", "Address", "Connected for"], sessions.map(sessionRow));

const panel = (label, columns, body) =>
  h(
    "div",
    { class: "panel" },
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
      h("tbody", {}, body),
    ),
  );

const sessionRow = ({ owner, principal, client, address, connectedMs }) =>
  h(
    "tr",
    {},
    h("td", {}, foreign(owner)),
    h("td", {}, foreign(principal)),
    h("td", {}, foreign(client)),
    h("td", { class: "mono" }, foreign(address)),
    h("td", {}, duration(connectedMs)),
  );

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

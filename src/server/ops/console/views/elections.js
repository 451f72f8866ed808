// Who leads. An election is a lock whose only holder has a value for others to see.

import { get } from "../api.js";
import { foreign, h, lockLink, render } from "../dom.js";
import { count, duration, metadata } from "../format.js";
import { Rows } from "../rows.js";
import { listenToPages, PAGE, Pages, pageBar } from "./pages.js";

const CANDIDATES_SHOWN = 3;

export function elections(root, _parameters, { refresh }) {
  const pages = new Pages();
  const rows = new Rows(root);
  let next = "";
  listenToPages(root, pages, () => next, refresh);
  return {
    title: "Elections",
    target: { prefix: "" },
    rows,
    async refresh(signal) {
      const page = await get("elections", { after: pages.after, limit: PAGE }, signal);
      next = page.next;
      render(root, [h("h1", {}, "Elections"), table(page.elections, rows), pageBar(pages, next)]);
    },
  };
}

function table(elections, rows) {
  if (elections.length === 0)
    return h("p", { class: "panel quiet" }, "Nobody on this page leads with a value for others to see.");
  const columns = ["Election", "Leader", "Value", "Term (token)", "Leads for", "Candidates"];
  return h(
    "div",
    { class: "panel" },
    h(
      "table",
      { "aria-label": "Elections" },
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
        elections.map((election) => row(election, rows)),
      ),
    ),
  );
}

function row({ name, leader, candidates, candidatesTotal }, rows) {
  const shown = candidates.slice(0, CANDIDATES_SHOWN);
  const more = candidatesTotal - shown.length;
  return h(
    "tr",
    { "data-key": name, "aria-selected": String(rows.isSelected(name)) },
    h("td", {}, lockLink(name)),
    h("td", {}, foreign(leader.owner)),
    h("td", {}, foreign(metadata(leader.metadata))),
    h("td", { class: "mono" }, leader.token),
    h("td", {}, duration(leader.heldMs)),
    h(
      "td",
      {},
      shown.map(({ owner }) => h("div", {}, foreign(owner))),
      more > 0 && h("div", { class: "quiet" }, `and ${count(more)} more`),
    ),
  );
}

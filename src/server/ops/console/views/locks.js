// All locks whose names begin with something, as they are now.

import { get } from "../api.js";
import { foreign, h, lockLink, render } from "../dom.js";
import { count, duration, mode } from "../format.js";
import { Rows } from "../rows.js";
import { listenToPages, PAGE, Pages, pageBar } from "./pages.js";

const TYPING_MS = 150;

export function locks(root, parameters, { refresh, retarget }) {
  let prefix = parameters.get("prefix") ?? "";
  let next = "";
  const pages = new Pages();
  const search = h("input", {
    type: "search",
    "aria-label": "Names that begin with",
    placeholder: "Names that begin with…   ( / )",
    autocomplete: "off",
    spellcheck: "false",
    value: prefix,
  });
  const list = h("div");
  root.replaceChildren(h("h1", {}, "Locks"), h("div", { class: "bar", role: "search" }, search), list);
  let timer;
  search.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(() => {
      prefix = search.value;
      pages.reset();
      view.target = { prefix };
      history.replaceState(null, "", `#/locks${prefix === "" ? "" : `?prefix=${encodeURIComponent(prefix)}`}`);
      retarget();
      refresh();
    }, TYPING_MS);
  });
  listenToPages(list, pages, () => next, refresh);
  if (parameters.has("focus")) search.focus();

  const rows = new Rows(list);
  const view = {
    title: "Locks",
    target: { prefix },
    rows,
    unmount: () => clearTimeout(timer),
    async refresh(signal) {
      const page = await get("locks", { prefix, after: pages.after, limit: PAGE }, signal);
      next = page.next;
      render(list, [table(page.locks, rows, prefix), pageBar(pages, next)]);
    },
  };
  return view;
}

function table(locks, rows, prefix) {
  if (locks.length === 0) {
    return h(
      "p",
      { class: "panel quiet" },
      prefix === "" ? "No locks." : ["No locks begin with ", foreign(prefix), "."],
    );
  }
  const columns = [
    ["Lock"],
    ["State"],
    ["Holder"],
    ["Held", "number"],
    ["Lease left", "number wide-only"],
    ["Waiting", "number"],
  ];
  return h(
    "div",
    { class: "panel" },
    h(
      "table",
      { "aria-label": "Locks" },
      h(
        "thead",
        {},
        h(
          "tr",
          {},
          columns.map(([name, style]) => h("th", { scope: "col", class: style }, name)),
        ),
      ),
      h(
        "tbody",
        {},
        locks.map((lock) => row(lock, rows)),
      ),
    ),
  );
}

function row(lock, rows) {
  const [holder] = lock.holders;
  const more = lock.holdersTotal - 1;
  return h(
    "tr",
    { "data-key": lock.name, "aria-selected": String(rows.isSelected(lock.name)) },
    h("td", {}, lockLink(lock.name)),
    h("td", {}, state(lock)),
    h("td", {}, holder && foreign(holder.owner), more > 0 && h("span", { class: "quiet" }, ` and ${count(more)} more`)),
    h("td", { class: "number" }, holder ? duration(holder.heldMs) : ""),
    h("td", { class: "number wide-only" }, holder ? duration(holder.leaseRemainingMs) : ""),
    h("td", { class: "number" }, count(lock.waitersTotal)),
  );
}

function state({ holders: [holder], reserved, delayRemainingMs }) {
  if (holder?.revoking) return h("span", { class: "badge revoking" }, "being taken away");
  if (holder) return h("span", { class: "badge held" }, mode(holder));
  if (delayRemainingMs > 0) return h("span", { class: "badge waited" }, `delayed ${duration(delayRemainingMs)}`);
  return h("span", { class: "badge" }, reserved ? "reserved" : "free");
}

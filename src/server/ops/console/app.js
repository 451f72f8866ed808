// The console: one view at a time, chosen by what is behind the "#", refreshed when the server says that something has
// happened, and every two seconds, since times pass. Never more than one refresh is on its way.

import { token } from "./api.js";
import { startKeys } from "./keys.js";
import { Live } from "./live.js";
import { startTheme } from "./theme.js";
import { elections } from "./views/elections.js";
import { leases } from "./views/leases.js";
import { lock } from "./views/lock.js";
import { locks } from "./views/locks.js";
import { overview } from "./views/overview.js";
import { signin } from "./views/signin.js";

const VIEWS = { overview, locks, lock, elections, leases, signin };
const EVERY_MS = 2_000;
/** Between two refreshes, however much happens. */
const PAUSE_MS = 250;

const main = document.querySelector("#main");
const notice = document.querySelector("#notice");
const liveState = document.querySelector("#live");
const help = document.querySelector("#help");

let view = null;
let shown = new AbortController();
let refreshing = false;
let again = false;
let followed = "";

const live = new Live({
  onState: (state) => {
    liveState.dataset.state = state;
    liveState.textContent = state;
  },
  onChanges: ({ events, skipped }) => {
    if (events.length > 0 || skipped > 0) void refresh();
  },
});

async function refresh() {
  if (refreshing) {
    again = true;
    return;
  }
  refreshing = true;
  do {
    again = false;
    await refreshOnce(view, shown.signal);
    await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
  } while (again);
  refreshing = false;
}

async function refreshOnce(which, signal) {
  try {
    await which.refresh(signal);
    if (!signal.aborted) notice.hidden = true;
  } catch (error) {
    if (signal.aborted) return;
    if (error.status === 401 && token.get() === "") {
      location.hash = `#/signin?then=${encodeURIComponent(location.hash)}`;
    }
    notice.hidden = false;
    notice.textContent = error.message;
  }
}

function retarget() {
  const target = view.target ?? { prefix: "" };
  const wanted = JSON.stringify(target);
  if (wanted === followed) return;
  followed = wanted;
  live.follow(target);
}

function signedIn() {
  document.querySelector("#who").textContent = token.get() === "" ? "Sign in" : "Signed in";
  followed = "";
  retarget();
}

function show() {
  const [path = "", query = ""] = location.hash.replace(/^#\/?/, "").split("?");
  const name = Object.hasOwn(VIEWS, path) ? path : "overview";
  shown.abort();
  shown = new AbortController();
  view?.unmount?.();
  notice.hidden = true;
  // A root of its own: what an older view still draws goes nowhere.
  const root = document.createElement("div");
  main.replaceChildren(root);
  view = VIEWS[name](root, new URLSearchParams(query), { refresh, retarget, signedIn });
  document.title = `${view.title} – Leasehold`;
  const current = name === "lock" ? "locks" : name;
  for (const link of document.querySelectorAll("[data-view]")) {
    if (link.dataset.view === current) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  if (!root.contains(document.activeElement)) main.focus({ preventScroll: true });
  retarget();
  void refresh();
}

startTheme(document.querySelector("#theme"));
startKeys(() => view, help);
document.querySelector("#help-button").addEventListener("click", () => help.showModal());
document.addEventListener("click", (event) => {
  const action = event.target.dataset?.action;
  if (action === "close-help") help.close();
  if (action !== "skip") return;
  event.preventDefault();
  main.focus();
});
addEventListener("hashchange", show);
setInterval(() => {
  if (!document.hidden) void refresh();
}, EVERY_MS);
document.addEventListener("visibilitychange", () => {
  if (!document.hidden) void refresh();
});
signedInLabel();
show();

function signedInLabel() {
  if (token.get() !== "") document.querySelector("#who").textContent = "Signed in";
}

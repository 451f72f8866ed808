// Who waits for whom, as a tree: at its roots whoever must do something next, below them those who wait for it.

import { foreign, h, lockLink } from "./dom.js";
import { duration } from "./format.js";

export function blockerTree(lock) {
  const roots = new Map();
  for (const waiter of lock.waiters) {
    const { blockedBy } = waiter;
    const key = blockedBy === null ? "" : `${blockedBy.token} ${blockedBy.ticketId} ${blockedBy.lock}`;
    const root = roots.get(key) ?? { blockedBy, waiters: [] };
    root.waiters.push(waiter);
    roots.set(key, root);
  }
  return h(
    "ul",
    { class: "tree", "aria-label": "Who blocks whom" },
    [...roots.values()].map((root) => h("li", {}, rootOf(lock, root), h("ul", {}, root.waiters.map(wait)))),
  );
}

function rootOf(lock, { blockedBy }) {
  if (blockedBy === null) return h("span", { class: "quiet" }, "nothing is in the way");
  const { token, ticketId, owner, hops } = blockedBy;
  if (token === 0 && ticketId === "")
    return h("span", {}, "the delay of ", otherLock(blockedBy.lock), " after its last hold");
  const what = token !== 0 ? `token ${token}` : `ticket ${ticketId}`;
  const elsewhere = blockedBy.lock === lock.name ? null : [" of ", otherLock(blockedBy.lock)];
  const far = hops > 1 ? `, over ${hops} hops` : "";
  return h("span", {}, foreign(owner), ` (${what}`, elsewhere, `${far}) is waited for by`);
}

/** What a policy keeps from whoever looks is no link. */
const otherLock = (name) => (name === "(not shown)" ? "a lock that is not shown" : lockLink(name));

const wait = ({ owner, ticket, waitedMs, locks }) =>
  h(
    "li",
    {},
    foreign(owner),
    ` (ticket ${ticket}), for ${duration(waitedMs)}${locks > 1 ? `, with ${locks} locks` : ""}`,
  );

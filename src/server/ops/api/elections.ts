/**
 * Elections. To the core they are locks like others; what makes one an election is that whoever holds it alone says
 * something to everybody: its value, which is the metadata of the hold. So these are the exclusive locks whose holder
 * has metadata. A page looks at a bounded number of locks, and may therefore show few elections, or none, and go on.
 */
import type { LockView, Outcome } from "../../core/types.js";
import { cut, waiterBytes } from "../../rpc/encode-views.js";
import { failed, json, refused } from "../answer.js";
import { ask } from "./ask.js";
import type { ApiRoute } from "./context.js";
import { badParameters, readPage } from "./query.js";
import * as views from "./views.js";

/** Locks that one page looks at. */
const SCANNED_MAX = 1_000;

export const listElections: ApiRoute = async (context, { query, identity }) => {
  const { coreLimits, limits } = context;
  const bad = badParameters(query, ["prefix", "after", "limit"]);
  if (bad !== null) return refused(bad);
  const page = readPage(query, coreLimits.nameBytesMax, limits.pageSizeDefault, limits.pageSizeMax);
  if ("kind" in page) return refused(page);
  const asked = await ask(context.sink, identity, {
    kind: "listLocks",
    prefix: page.prefix,
    after: page.after,
    limit: SCANNED_MAX,
    wallMs: Date.now(),
  });
  if ("failure" in asked) return failed(asked.failure);
  const { locks, next } = asked.outcome as Extract<Outcome, { kind: "locks" }>;
  const elections = locks.filter(isElection);
  const shown = cut(elections.slice(0, page.limit), views.lockBytes, limits.listBytesMax);
  const last = shown.length < elections.length ? (shown.at(-1)?.name ?? "") : next;
  const bytesMax = limits.listBytesMax / Math.max(1, shown.length);
  return json({ elections: shown.map((lock) => election(lock, bytesMax)), next: last, timestamp: asked.timestamp });
};

const isElection = ({ holders }: LockView): boolean => holders[0]?.mode === "exclusive" && holders[0].metadata !== "";

function election(lock: LockView, bytesMax: number): object {
  const [leader] = lock.holders;
  return {
    name: lock.name,
    leader: leader === undefined ? null : views.holder(leader),
    candidates: cut(lock.waiters, waiterBytes, bytesMax).map(views.waiter),
    candidatesTotal: lock.waitersTotal,
  };
}

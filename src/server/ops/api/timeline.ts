/**
 * What has happened to one lock: its grants and their ends, out of the history that watchers continue from. That history
 * is kept only while somebody watches, as the console does while it is open, and for ten minutes after.
 */
import { setImmediate as nextTurn } from "node:timers/promises";
import type { LockEvent } from "../../core/types.js";
import { badRange } from "../../rpc/check.js";
import { failureOf } from "../../rpc/errors.js";
import { failed, json, refused } from "../answer.js";
import { ask } from "./ask.js";
import type { ApiRoute } from "./context.js";
import { eventBody } from "./event-body.js";
import { badParameters, readLimit } from "./query.js";

const EVENTS_DEFAULT = 200;
const EVENTS_MAX = 1_000;
/** Events that are looked at in one turn of the event loop: grants go on meanwhile. */
const SLICE = 4_096;

export const timeline: ApiRoute = async (context, { name, query, identity }) => {
  const limit = readLimit(query, EVENTS_DEFAULT);
  const bad = badParameters(query, ["name", "limit"]) ?? badRange("limit", limit, 1, EVENTS_MAX);
  if (bad !== null) return refused(bad);
  const refusal = identity.permits({ verb: "observe", name, prefix: false });
  if (refusal !== null) return failed(failureOf(refusal));
  // Only a server that leads may say anything.
  const asked = await ask(context.sink, identity, { kind: "status" });
  if ("failure" in asked) return failed(asked.failure);

  const { history } = context.watch;
  const since = history.base;
  const found: LockEvent[] = [];
  let cut = false;
  for (let after: number | null = since; after !== null; ) {
    after = history.read(after, SLICE, (event) => {
      if (event.name === name) found.push(event);
    });
    cut ||= found.length > limit;
    found.splice(0, found.length - limit);
    if (after !== null) await nextTurn();
  }
  const events = found.map((event) => eventBody(event, context.wallTimes.of(event.timestamp)));
  // Nothing is told of what came before `since`, nor, if `cut`, before the first of the events.
  return json({ name, nowMs: Date.now(), since, sinceMs: context.wallTimes.of(since + 1), cut, events });
};

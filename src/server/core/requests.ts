/**
 * Unary Acquires by request id.
 *
 * While one waits or holds, its ticket or hold is its own memory. When it is over it is remembered for a while
 * (`requestRememberedMs`), so that a duplicate that was on its way has no effect. The memory is bounded: when it is
 * full, Acquires that would need it are refused.
 */
import { deleteRequest, putRequest } from "./records.js";
import { type Hold, type PastRequest, requestKey, type State, type Ticket } from "./state.js";
import type { Effects, Refusal } from "./types.js";

/** The key of the Acquire that made this hold or ticket, or "" if it cannot be repeated. */
export function keyOf(entry: Hold | Ticket): string {
  if (entry.requestId === "") return "";
  const { lease, requestId } = entry;
  return requestKey(lease.own ? "" : lease.id, lease.principal, requestId);
}

/** Remembers that the Acquire is over. */
export function rememberRequest(
  state: State,
  fx: Effects,
  key: string,
  end: PastRequest["end"],
  token: number,
  nowMs: number,
): void {
  if (key === "") return;
  const before = state.requests.get(key);
  if (before?.kind === "request") forgetRequest(state, fx, before);
  const request: PastRequest = { kind: "request", key, end, token, dueMs: 0, heapIndex: -1 };
  state.requests.set(key, request);
  state.pastRequests++;
  state.deadlines.set(request, nowMs + state.limits.requestRememberedMs);
  putRequest(fx, request);
}

export function forgetRequest(state: State, fx: Effects, request: PastRequest): void {
  state.deadlines.delete(request);
  state.requests.delete(request.key);
  state.pastRequests--;
  deleteRequest(fx, request);
}

/** Null, or why no further request id can be taken in. */
export function refuseRequestId(state: State): Refusal | null {
  if (state.pastRequests < state.limits.requestsRememberedMax) return null;
  return {
    kind: "refused",
    reason: "LIMIT",
    message: `the server remembers its ${state.limits.requestsRememberedMax} request ids; try again later`,
  };
}

/** What happened to a lock, as the API tells it. */
import type { LockEvent } from "../../core/types.js";

/** `atMs`: since 1970, 0: not known. */
export function eventBody(event: LockEvent, atMs: number): object {
  const { kind, name, timestamp } = event;
  const common = { kind, name, timestamp, atMs };
  switch (event.kind) {
    case "queued":
    case "dequeued": {
      const { ticketId, owner, mode } = event.waiter;
      return { ...common, ticket: ticketId, owner, mode };
    }
    case "granted": {
      const { token, mode, waitedMs, ticketId, transferredFrom, hold } = event;
      return { ...common, token, mode, owner: hold.owner, waitedMs, ticket: ticketId, transferredFrom };
    }
    case "holdEnded": {
      const { token, mode, end, heldMs, message } = event;
      return { ...common, token, mode, end, heldMs, message };
    }
    default: {
      const { token, message, hold } = event;
      return { ...common, token, message, owner: hold.owner, mode: hold.mode };
    }
  }
}

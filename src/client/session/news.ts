/** What a frame of the server's tells about leases and holds, apart from the answers to commands. */
import type { v1 } from "../wire/index.js";
import { lostReason } from "./failure.js";
import type { Holdings } from "./holdings.js";
import type { Sender } from "./sender.js";

export type Response = ReturnType<typeof v1.AttachResponse.decode>;

/** To be heard before the results, so that no grant is taken whose lease is known to be dead. */
export function hearOfLeases(response: Response, holdings: Holdings, sender: Sender, nowMs: number): void {
  for (const { sessionLease, frame, remainingMs, renewAfterMs } of response.renewals) {
    const lease = holdings.leases.get(sessionLease ?? 0);
    const sentAtMs = sender.renewed(lease, frame ?? 0);
    if (sentAtMs === undefined) continue;
    lease?.confirm(sentAtMs, remainingMs ?? 0, nowMs);
    if (renewAfterMs) sender.renewAt(nowMs + renewAfterMs);
  }
  for (const { sessionLease, reason } of response.leaseEnds) {
    holdings.leases.get(sessionLease ?? 0)?.lose(lostReason(reason), nowMs, false);
  }
}

/**
 * To be heard before the results, so that whoever is refused for it learns why. Returns what concerns no hold that is
 * known, and is to be heard again behind the results: it may concern a grant among them.
 */
export function hearOfHolds(ends: Response["holdEnds"], holdings: Holdings): Response["holdEnds"] {
  return ends.filter((end) => !holdings.holdEnded(end));
}

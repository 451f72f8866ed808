/** Holders and waiters as the command line shows them: plain data from the wire, and the words for it. */
import { isUtf8 } from "node:buffer";
import { type leasehold, v1 } from "@leasehold/client/wire";
import { base64, duration, plain, plural } from "./output.js";

export type WireHolder = leasehold.v1.Holder.$Properties;
export type WireWaiter = leasehold.v1.Waiter.$Properties;
type WireBlocker = leasehold.v1.Blocker.$Properties;

export type Mode = "exclusive" | "shared" | "semaphore";

export function modeOf(mode: leasehold.v1.LockMode | null | undefined): Mode {
  if (mode === v1.LockMode.LOCK_MODE_SHARED) return "shared";
  return mode === v1.LockMode.LOCK_MODE_SEMAPHORE ? "semaphore" : "exclusive";
}

// A decoded message has the fields that were not sent on its prototype: JSON is made field by field.

export function holderForJson(holder: WireHolder) {
  const { token, timestamp, owner, metadata, heldMs, leaseRemainingMs, leaseDisplayId, permits, permitLimit } = holder;
  return {
    ...{ token, timestamp, owner, ...metadataForJson(metadata), heldMs, leaseRemainingMs, leaseDisplayId },
    ...{ mode: modeOf(holder.mode), permits, permitLimit, slots: [...(holder.slots ?? [])] },
    maxHoldRemainingMs: holder.maxHoldRemainingMs,
    revoking: holder.revoking,
    contenderId: holder.contenderId,
  };
}

export function waiterForJson(waiter: WireWaiter) {
  const { ticketId, position, owner, metadata, waitedMs, attached, permits, permitLimit, locks, contenderId } = waiter;
  return {
    ...{ ticketId, position, owner, ...metadataForJson(metadata), waitedMs, attached },
    ...{ mode: modeOf(waiter.mode), permits, permitLimit, locks, contenderId },
    blockedBy: waiter.blockedBy ? blockerForJson(waiter.blockedBy) : null,
  };
}

const blockerForJson = ({ lock, token, ticketId, owner, hops }: WireBlocker) => ({
  lock,
  token: token || null,
  ticketId: ticketId || null,
  owner,
  hops,
});

/** As base64, and as the text that it mostly is; null if it is none. */
export function metadataForJson(metadata: Uint8Array | null | undefined) {
  const bytes = metadata ?? new Uint8Array();
  return { metadata: base64(bytes), metadataText: isUtf8(bytes) ? Buffer.from(bytes).toString() : null };
}

/** An owner's name; nameless ones exist. */
export const ownerText = (owner: string | null | undefined): string => plain(owner ?? "") || "-";

/** Metadata on one line: as text if it is text. */
export function metadataText(bytes: Uint8Array): string {
  if (isUtf8(bytes)) return plain(Buffer.from(bytes).toString());
  return `${plural(bytes.length, "byte")} in base64: ${base64(bytes)}`;
}

interface Moded {
  readonly mode?: leasehold.v1.LockMode | null;
  readonly permits?: number | null;
  readonly permitLimit?: number | null;
}

/** "exclusive", "shared", "2 of 5 permits". */
export function modeText(of: Moded): string {
  const mode = modeOf(of.mode);
  return mode === "semaphore" ? `${of.permits || 1} of ${plural(of.permitLimit ?? 0, "permit")}` : mode;
}

/** The mode of a lock by its holders: "semaphore 3/5" is three permits of five. `total` is how many holders there are. */
export function lockModeText(holders: readonly WireHolder[], total: number): string {
  const [first] = holders;
  if (!first) return "-";
  const mode = modeOf(first.mode);
  if (mode !== "semaphore" || total > holders.length) return mode;
  const taken = holders.reduce((sum, { permits }) => sum + (permits || 1), 0);
  const limit = Math.min(...holders.map(({ permitLimit }) => permitLimit ?? 0));
  return `semaphore ${taken}/${limit}`;
}

/** What a waiter waits for in the end, and through how many hops; `name` is the lock in whose queue it stands. */
export function blockerText(blocker: WireBlocker | null | undefined, name: string): string {
  if (!blocker) return "-";
  const lock = blocker.lock && blocker.lock !== name ? ` of ${plain(blocker.lock)}` : "";
  const owner = blocker.owner ? ` (${plain(blocker.owner)})` : "";
  const hops = (blocker.hops ?? 1) > 1 ? `, ${blocker.hops} hops` : "";
  if (blocker.token) return `token ${blocker.token}${lock}${owner}${hops}`;
  if (blocker.ticketId) return `ticket ${plain(blocker.ticketId)}${lock}${owner}, not connected${hops}`;
  return `the lock delay${lock}${hops}`;
}

/** For a lock that nobody holds. */
export function freeText(reserved: boolean, delayRemainingMs: number): string {
  if (delayRemainingMs > 0) return `free, but its lock delay runs for another ${duration(delayRemainingMs)}`;
  return reserved ? "free, but reserved for the first in its queue" : "free";
}

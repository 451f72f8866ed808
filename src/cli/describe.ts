/** `leasehold locks describe NAME`: who holds a lock, who waits for it, and for whom. */
import { v1 } from "@leasehold/client/wire";
import type { Caller } from "./common.js";
import {
  blockerText,
  freeText,
  holderForJson,
  metadataText,
  modeText,
  ownerText,
  type WireHolder,
  type WireWaiter,
  waiterForJson,
} from "./lock-views.js";
import { duration, plain, plural, table } from "./output.js";

const method = {
  path: "/leasehold.v1.LockService/DescribeLock",
  request: v1.DescribeLockRequest,
  response: v1.DescribeLockResponse,
} as const;

/** Waiters that are listed. */
const WAITERS_MAX = 100;

export type Described = ReturnType<typeof v1.DescribeLockResponse.decode>;

export const fetchLock = (server: Caller, name: string, waitersMax = WAITERS_MAX): Promise<Described> =>
  server.call(method, { name, waitersMax });

/** All holders; a server lists the first hundred. */
export const holdersTotal = (lock: Described): number => Math.max(lock.holdersTotal, (lock.holders ?? []).length);

export function lockForJson(lock: Described) {
  const { name, reserved, delayRemainingMs, waitersTotal } = lock;
  return {
    name,
    holders: (lock.holders ?? []).map(holderForJson),
    holdersTotal: holdersTotal(lock),
    ...{ reserved, delayRemainingMs, waitersTotal },
    waiters: (lock.waiters ?? []).map(waiterForJson),
  };
}

export function lockForPeople(name: string, lock: Described): string {
  const holders = lock.holders ?? [];
  let text = `${plain(name)}\n`;
  if (holders.length === 0) text += `${freeText(lock.reserved, lock.delayRemainingMs)}\n`;
  for (const holder of holders) text += describeHolder(holder);
  const unlistedHolders = holdersTotal(lock) - holders.length;
  if (unlistedHolders > 0) text += `... and ${plural(unlistedHolders, "more holder")}\n`;
  if (lock.waitersTotal === 0) return `${text}nobody waits\n`;
  text += `${plural(lock.waitersTotal, "waiter")}\n${waiterTable(name, lock.waiters ?? [])}`;
  const unlisted = lock.waitersTotal - (lock.waiters ?? []).length;
  return unlisted > 0 ? `${text}... and ${unlisted} more\n` : text;
}

function describeHolder(holder: WireHolder): string {
  const { token = 0, timestamp = 0, heldMs, leaseRemainingMs, slots, maxHoldRemainingMs, revoking } = holder;
  const owner = plain(holder.owner ?? "") || "someone without a name";
  const left = duration(leaseRemainingMs ?? 0);
  const lines = [
    `held by ${owner} for ${duration(heldMs ?? 0)}, ${modeText(holder)}, token ${token}, timestamp ${timestamp}`,
    `lease ${plain(holder.leaseDisplayId ?? "")} ends in ${left} unless renewed`,
  ];
  if (slots?.length) lines.push(`${slots.length === 1 ? "slot" : "slots"} ${slots.join(", ")}`);
  if (maxHoldRemainingMs) lines.push(`maximum hold: ends in ${duration(maxHoldRemainingMs)}, renewed or not`);
  if (revoking) lines.push("being taken away: ends when its holder confirms, or has been promised no more");
  if (holder.contenderId) lines.push(`contender ${plain(holder.contenderId)}`);
  if (holder.metadata?.length) lines.push(`metadata ${metadataText(holder.metadata)}`);
  return `${lines.join("\n  ")}\n`;
}

function waiterTable(name: string, waiters: readonly WireWaiter[]): string {
  return table(
    ["#>", "TICKET", "OWNER", "MODE", "WAITED>", "CONNECTED", "BLOCKED BY"],
    waiters.map((waiter) => [
      String(waiter.position),
      plain(waiter.ticketId ?? "") || "-",
      ownerText(waiter.owner),
      modeText(waiter) + ((waiter.locks ?? 1) > 1 ? `, one of ${waiter.locks} locks` : ""),
      duration(waiter.waitedMs ?? 0),
      waiter.attached ? "yes" : "no",
      blockerText(waiter.blockedBy, name),
    ]),
  );
}

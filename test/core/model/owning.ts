/** To whom things belong, and how much a principal has. */
import type { Principal } from "../../../src/server/core/types.js";
import type { ModelState } from "./state.js";
import { refused } from "./step.js";

export const mayUse = ({ name }: Principal, owner: string): boolean => [name, owner].includes("") || name === owner;

export const denied = refused("DENIED");

/** What it has of leases, of holds and of places in queues. */
function usageOf(state: ModelState, name: string): { leases: number; locks: number; waiters: number } {
  const ids = state.leases.filter(({ principal }) => principal === name).map(({ id }) => id);
  const locks = state.holds.filter(({ grant }) => ids.includes(grant.leaseId)).length;
  const waiters = state.tickets.filter(({ leaseId }) => ids.includes(leaseId)).flatMap(({ items }) => items).length;
  return { leases: ids.length, locks, waiters };
}

/** Whether a principal may have so much more than it has. */
export function isWithin(
  state: ModelState,
  { name, quota }: Principal,
  more: { leases?: number; locks?: number; waiters?: number },
): boolean {
  if (name === "") return true;
  const { leases = 0, locks = 0, waiters = 0 } = more;
  const has = usageOf(state, name);
  if (leases > 0 && has.leases + leases > quota.leasesMax) return false;
  if (locks > 0 && has.locks + locks > quota.locksMax) return false;
  return waiters === 0 || has.waiters + waiters <= quota.waitersMax;
}

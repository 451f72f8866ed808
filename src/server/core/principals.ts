/**
 * To whom things belong, and how much one principal may have.
 *
 * A lease and a session belong to the principal that made them, and what hangs on them does, too. While authentication is
 * off nobody is anybody in particular: what is made then belongs to nobody, and everybody may use everything.
 *
 * What each principal has is counted, not looked up: a quota is checked on the way of every Acquire. The counts follow
 * from leases, holds and tickets; they are never written down.
 */
import type { State } from "./state.js";
import type { Principal, Quota, Refusal } from "./types.js";

/** What one principal has: as long as something of it is there, dead leases that are not cleared away included. */
export interface Usage {
  leases: number;
  /** Grants. */
  locks: number;
  /** Places in queues. */
  waiters: number;
}

const quotaOf: Record<keyof Usage, keyof Quota> = {
  leases: "leasesMax",
  locks: "locksMax",
  waiters: "waitersMax",
};

/** Whether the principal may use what belongs to `owner`; "": to nobody. */
export const mayUse = ({ name }: Principal, owner: string): boolean => name === "" || owner === "" || name === owner;

/** Says neither whose it is nor its id: whoever asks is not to learn that. */
export const denied = (what: "lease" | "grant" | "session"): Refusal => ({
  kind: "refused",
  reason: "DENIED",
  message: `this ${what} belongs to another principal`,
});

/** Something of that principal has come or (less than 0) gone. */
export function countUsage(state: State, name: string, what: keyof Usage, change: number): void {
  if (name === "") return;
  let usage = state.usage.get(name);
  if (usage === undefined) {
    usage = { leases: 0, locks: 0, waiters: 0 };
    state.usage.set(name, usage);
  }
  usage[what] += change;
  if (usage.leases + usage.locks + usage.waiters === 0) state.usage.delete(name);
}

/** Null, or that the principal may not have so many more. */
export function refuseQuota(state: State, { name, quota }: Principal, what: keyof Usage, more: number): Refusal | null {
  if (name === "") return null;
  const max = quota[quotaOf[what]];
  if ((state.usage.get(name)?.[what] ?? 0) + more <= max) return null;
  return { kind: "refused", reason: "LIMIT", message: `principal ${name} has its ${max} ${what}` };
}

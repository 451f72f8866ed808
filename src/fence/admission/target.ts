/**
 * What a request writes to, as the service says. Never as the caller says: a holder that is stale for one resource could
 * name another, for which it is not.
 */
import { holdOf } from "../hold.js";
import { checkKeys } from "../token.js";
import type { Presented } from "./presented.js";

/**
 * The name of the lock that guards what is written; with the slot, where that is what one permit of a semaphore guards; null
 * for a request that writes nothing and is not fenced.
 */
export type Guarded = string | { readonly name: string; readonly slot?: number | undefined } | null;

/** What somebody wants to write to, and with which token. */
export interface Asked {
  /** The name of the lock. */
  readonly name: string;
  /** The permit of a semaphore, if that is what is guarded. */
  readonly slot: number | undefined;
  /** What is fenced: the name, or `name#slot`. */
  readonly resource: string;
  readonly token: number;
  readonly mode: "exclusive" | "shared";
}

/** The name and slot of something guarded. Throws INVALID unless it is text, or an object of the two. */
export function nameAndSlot(guarded: Exclude<Guarded, null>): { name: string; slot: number | undefined } {
  if (typeof guarded === "string") return { name: guarded, slot: undefined };
  // A forgotten `return` must not mean "not fenced".
  if (guarded === undefined) throw new TypeError("resource() returned nothing; for what is not fenced return null");
  checkKeys(guarded, ["name", "slot"], "what resource() returns");
  return { name: guarded.name, slot: guarded.slot };
}

/** Throws INVALID for names, slots and combinations that cannot be. */
export function askedOf(guarded: Exclude<Guarded, null>, { token, mode }: Presented): Asked {
  const { name, slot } = nameAndSlot(guarded);
  const { resource } = holdOf({ name, slot, token, mode });
  return { name, slot, resource, token, mode };
}

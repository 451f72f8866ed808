/** Who fits in beside whom, and which slots a candidate would get. */
import type { LockItem } from "../../../src/server/core/types.js";

/** What a lock is held by, as far as it matters to a candidate. */
export interface Held {
  readonly mode: LockItem["mode"];
  readonly permits: number;
  readonly permitLimit: number;
}

/** Beside exactly these holds; a lock delay is not looked at. */
export function fitsBeside(candidate: Held, holds: readonly Held[], holdersMax: number): boolean {
  if (holds.length >= holdersMax) return false;
  if (candidate.mode === "exclusive") return holds.length === 0;
  if (holds.some(({ mode }) => mode !== candidate.mode)) return false;
  if (candidate.mode === "shared") return true;
  const all = [...holds, candidate];
  const taken = all.reduce((sum, { permits }) => sum + permits, 0);
  return taken <= Math.min(...all.map(({ permitLimit }) => permitLimit));
}

/** The lowest slots that nobody has. */
export function freeSlots(candidate: Held, taken: readonly number[]): number[] {
  const slots: number[] = [];
  if (candidate.mode !== "semaphore") return slots;
  for (let slot = 0; slots.length < candidate.permits; slot++) if (!taken.includes(slot)) slots.push(slot);
  return slots;
}

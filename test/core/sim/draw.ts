/** What clients ask for: drawn at random, in a world in which most users of a lock agree on what it is. */
import type { Acquire, LockItem, LockMode } from "../../../src/server/core/types.js";
import type { Random } from "./random.js";

/** What is so in one simulation. */
export interface Habits {
  readonly random: Random;
  readonly lockNames: readonly string[];
  /** The mode that most use for a lock. */
  modeOf(name: string): LockMode;
  /** How many permits there are by the newest release of the clients' program. */
  permitLimitOf(name: string): number;
}

function drawItem(habits: Habits, name: string): LockItem {
  const { random } = habits;
  const usual = habits.modeOf(name);
  const mode = random.chance(0.1) ? random.pick(["exclusive", "shared", "semaphore"] as const) : usual;
  // Of those who read, some write.
  if (mode === "shared" && random.chance(0.35)) return { name, mode: "exclusive", permits: 0, permitLimit: 0 };
  if (mode !== "semaphore") return { name, mode, permits: 0, permitLimit: 0 };
  const permitLimit = random.chance(0.2) ? random.between(1, 5) : habits.permitLimitOf(name);
  return { name, mode, permits: random.chance(0.6) ? 1 : random.between(1, permitLimit), permitLimit };
}

function drawNames({ random, lockNames }: Habits): string[] {
  const left = [...lockNames];
  const names: string[] = [];
  const count = random.pick([1, 2, 2, 3]);
  while (names.length < count && left.length > 0) names.push(...left.splice(random.between(0, left.length - 1), 1));
  return names;
}

/** Everything but who holds and how long it waits. `mine`: tokens that the caller may say to keep. */
export function drawAcquire(habits: Habits, mine: readonly number[]): Omit<Acquire, "holder" | "waitMs" | "requestId"> {
  const { random } = habits;
  const all = random.chance(0.25);
  const names = all ? drawNames(habits) : [random.pick(habits.lockNames)];
  const heldTokens = random.chance(0.4) ? mine.filter(() => random.chance(0.7)) : [];
  if (random.chance(0.01)) heldTokens.push(random.between(1, 50)); // perhaps somebody else's
  return {
    kind: "acquire",
    items: names.map((name) => drawItem(habits, name)),
    all,
    pollMs: random.pick([50, 200, 1_000]),
    owner: "",
    metadata: "",
    wallMs: 0,
    lockDelayMs: random.chance(0.4) ? random.between(50, 1_200) : 0,
    maxHoldMs: random.chance(0.2) ? random.between(50, 1_500) : 0,
    contenderId: random.pick(["", "", "task-1", "task-2"]),
    heldTokens,
  };
}

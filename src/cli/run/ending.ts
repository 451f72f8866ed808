/**
 * Ending a command: SIGTERM, the grace, SIGKILL; SIGKILL at once when what is left of the belief is down to the margin.
 * There is no way back: a renewal that arrives now keeps the lock, so that nobody else gets it before the command is
 * dead, and saves nothing else.
 *
 * Guardian and supervisor end commands in the same way, by this file. It loads nothing but Node's own modules.
 */
import { type Belief, elapsedMs, type Plan, remainingMs, type Stamp, stamp } from "./belief.js";
import type { ProcessTree } from "./tree.js";

const LOOK_EVERY_MS = 20;
/** How long after SIGKILL a process that still lives is taken for one that cannot be killed. */
const UNKILLABLE_AFTER_MS = 2_000;

export class Ending {
  readonly #tree: ProcessTree;
  readonly #plan: Plan;
  readonly #belief: () => Belief;
  readonly #onEnded: (survivors: number) => void;
  readonly #lookForMs: number;
  readonly #begunAt: Stamp = stamp();
  #straysAsked = false;
  #killedAt: Stamp | undefined;

  /**
   * Begins at once. `onEnded` is called once, later, with the number of processes that could not be killed; not before
   * `lookForMs` have passed, in case something has yet to appear.
   */
  constructor(
    tree: ProcessTree,
    plan: Plan,
    belief: () => Belief,
    onEnded: (survivors: number) => void,
    lookForMs = 0,
  ) {
    this.#tree = tree;
    this.#plan = plan;
    this.#belief = belief;
    this.#onEnded = onEnded;
    this.#lookForMs = lookForMs;
    tree.signal("SIGTERM");
    tree.signal("SIGCONT"); // a stopped process acts on no other signal
    setImmediate(() => this.#step());
  }

  #step(): void {
    const now = stamp();
    if (this.#killedAt || this.#graceLeftMs(now) <= 0) this.#kill(now);
    const alive = this.#tree.alive();
    const over = this.#killedAt !== undefined && elapsedMs(this.#killedAt, now) >= UNKILLABLE_AFTER_MS;
    if ((alive === 0 && elapsedMs(this.#begunAt, now) >= this.#lookForMs) || over) {
      this.#onEnded(alive);
      return;
    }
    if (!this.#straysAsked && !this.#tree.coreAlive()) {
      this.#straysAsked = true;
      this.#tree.signalStrays("SIGTERM");
    }
    // On a machine with very many processes a look takes long: it shall not become all that is done.
    const lookEveryMs = Math.max(LOOK_EVERY_MS, 2 * elapsedMs(now, stamp()));
    const graceLeftMs = this.#killedAt ? lookEveryMs : this.#graceLeftMs(stamp());
    setTimeout(() => this.#step(), Math.max(1, Math.min(lookEveryMs, graceLeftMs)));
  }

  #graceLeftMs(now: Stamp): number {
    const beliefMs = remainingMs(this.#belief(), now) - this.#plan.marginMs;
    return Math.min(this.#plan.graceMs - elapsedMs(this.#begunAt, now), beliefMs);
  }

  /** Again at every step: something may have been forked while the list was read. */
  #kill(now: Stamp): void {
    this.#killedAt ??= now;
    this.#tree.signal("SIGKILL");
    this.#tree.signalStrays("SIGKILL");
  }
}

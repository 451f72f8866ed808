/**
 * Served time: the clock by which leases expire.
 *
 * It follows the monotonic clock, but not through a stall. While the process was stopped or busy, renewals waited in its
 * sockets; if the clock had run on, leases would be dead before those renewals are read. So a turn of the event loop
 * counts for 100 ms at most, and after a longer one nothing expires for 250 ms, in which what has waited is read.
 * Being slower than real time is the safe side: nobody is granted a lock too early.
 *
 * Within a turn the time goes on, to the same bound. Were it to stand still, what is read late in a long turn would be
 * stamped earlier than its client sent it, and its lease would end earlier than the client believes.
 */

/** A longer turn of the loop is a stall and counts as this. */
const TURN_MS_MAX = 100;
/** For how long after a stall nothing expires. */
const QUIET_MS = 250;

export interface TurnScheduler {
  /** Calls back when the current turn of the event loop has come to its end. */
  afterTurn(f: () => void): void;
  /** Real monotonic time in milliseconds. */
  monotonicMs(): number;
  /** Calls back again and again; returns how to end that. */
  every(ms: number, f: () => void): () => void;
  delay(ms: number): Promise<void>;
}

export class ServedClock {
  readonly #turns: TurnScheduler;
  #servedMs = 0;
  #sampledAtMs: number;
  #sampledThisTurn = false;
  #quietUntilMs = Number.NEGATIVE_INFINITY;
  #stalls = 0;

  constructor(turns: TurnScheduler) {
    this.#turns = turns;
    this.#sampledAtMs = turns.monotonicMs();
  }

  /** Served time in milliseconds since the clock was made. Has to be asked every 100 ms, or it falls behind. */
  now(): number {
    if (!this.#sampledThisTurn) this.#sample();
    return this.#servedMs + Math.min(this.#turns.monotonicMs() - this.#sampledAtMs, TURN_MS_MAX);
  }

  /** Whether enough time has passed since the last stall for leases to expire. */
  mayExpire(): boolean {
    this.now();
    return this.#turns.monotonicMs() >= this.#quietUntilMs;
  }

  /** How many stalls there have been. */
  get stalls(): number {
    return this.#stalls;
  }

  #sample(): void {
    const monotonicMs = this.#turns.monotonicMs();
    const turnMs = monotonicMs - this.#sampledAtMs;
    this.#sampledAtMs = monotonicMs;
    this.#servedMs += Math.min(turnMs, TURN_MS_MAX);
    if (turnMs > TURN_MS_MAX) {
      this.#quietUntilMs = monotonicMs + QUIET_MS;
      this.#stalls++;
    }
    this.#sampledThisTurn = true;
    this.#turns.afterTurn(() => {
      this.#sampledThisTurn = false;
    });
  }
}

/** The event loop of this process. */
export const eventLoop: TurnScheduler = {
  afterTurn: (f) => void setImmediate(f),
  monotonicMs: () => performance.now(),
  every(ms, f) {
    const timer = setInterval(f, ms);
    return () => clearInterval(timer);
  },
  delay: (ms) => new Promise((resolve) => setTimeout(resolve, ms)),
};

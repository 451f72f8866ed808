/**
 * Turns: for each resource a queue in this process, so that what is admitted under an older token has ended before anything
 * under a newer one begins.
 *
 * Who may be inside together is who may hold the lock together: requests with one and the same exclusive token, or shared
 * ones. All others wait, first come, first served; nobody joins those inside past somebody who waits.
 *
 * Nobody waits for ever behind a handler that stands still: those inside whose token is lower than that of somebody who
 * waits are told by a signal that they are stale, and whoever waits gives up after its time.
 */
import { FenceError, show, stale } from "../errors.js";

/** Who wants to be let in. */
export interface Entrant {
  readonly resource: string;
  readonly token: number;
  readonly mode: "exclusive" | "shared";
}

/** A turn that was given. */
export interface Turn {
  /** Aborted when somebody with a higher token waits for the end of this turn. */
  readonly signal: AbortSignal;
  /** Ends the turn. Again: no effect. */
  end(): void;
}

export interface TurnLimits {
  /** How many may wait for one resource. */
  readonly waitingMax: number;
  /** How many may wait altogether. */
  readonly waitingTotalMax: number;
  readonly waitMs: number;
}

interface Waiter {
  readonly entrant: Entrant;
  readonly enter: () => void;
}

interface Inside {
  readonly entrant: Entrant;
  readonly abort: AbortController;
}

interface Queue {
  readonly inside: Set<Inside>;
  readonly waiting: Set<Waiter>;
}

function together(a: Entrant, b: Entrant): boolean {
  return a.mode === "shared" ? b.mode === "shared" : b.mode === "exclusive" && a.token === b.token;
}

/** Tells the one inside that it is stale, if it is so because of the other one. */
function warn({ entrant, abort }: Inside, waiting: Entrant): void {
  if (waiting.token <= entrant.token || together(entrant, waiting)) return;
  abort.abort(stale(entrant.resource, entrant.token, waiting.token));
}

export class Turns {
  readonly #limits: TurnLimits;
  /** Only resources that somebody is inside of. */
  readonly #queues = new Map<string, Queue>();
  #waiting = 0;

  constructor(limits: TurnLimits) {
    this.#limits = limits;
  }

  /**
   * Resolves when it is the entrant's turn. Rejects LIMIT when too many wait, or when it has waited too long; rejects with
   * the signal's reason when that is aborted first.
   */
  async take(entrant: Entrant, gone: AbortSignal | undefined): Promise<Turn> {
    const queue = this.#queues.get(entrant.resource) ?? { inside: new Set(), waiting: new Set() };
    this.#queues.set(entrant.resource, queue);
    const mayEnter = queue.waiting.size === 0 && this.#fits(queue, entrant);
    return mayEnter ? this.#enter(queue, entrant) : await this.#wait(queue, entrant, gone);
  }

  #fits({ inside }: Queue, entrant: Entrant): boolean {
    const [one] = inside; // all that are inside go together
    return one === undefined || together(one.entrant, entrant);
  }

  #enter(queue: Queue, entrant: Entrant): Turn {
    const inside: Inside = { entrant, abort: new AbortController() };
    queue.inside.add(inside);
    for (const { entrant: waiting } of queue.waiting) warn(inside, waiting);
    const end = () => {
      if (queue.inside.delete(inside)) this.#advance(entrant.resource, queue);
    };
    return { signal: inside.abort.signal, end };
  }

  /** Lets in from the front of the queue whoever fits. */
  #advance(resource: string, queue: Queue): void {
    for (const waiter of queue.waiting) {
      if (!this.#fits(queue, waiter.entrant)) break;
      waiter.enter();
    }
    if (queue.inside.size === 0) this.#queues.delete(resource);
  }

  #wait(queue: Queue, entrant: Entrant, gone: AbortSignal | undefined): Promise<Turn> {
    const { waitingMax, waitingTotalMax, waitMs } = this.#limits;
    const { resource } = entrant;
    if (queue.waiting.size >= waitingMax || this.#waiting >= waitingTotalMax) {
      throw new FenceError("LIMIT", `too many requests wait for their turn at ${show(resource)}`, { resource });
    }
    if (gone?.aborted) throw gone.reason;
    return new Promise((resolve, reject) => {
      const leave = () => {
        clearTimeout(timer);
        gone?.removeEventListener("abort", onGone);
        queue.waiting.delete(waiter);
        this.#waiting -= 1;
      };
      const giveUp = (reason: unknown) => {
        leave();
        reject(reason);
        this.#advance(resource, queue); // those behind may go together with those inside
      };
      const onGone = () => giveUp(gone?.reason);
      const onLate = () => {
        const message = `no turn at ${show(resource)} within ${waitMs} ms: a request before it has not ended`;
        giveUp(new FenceError("LIMIT", message, { resource }));
      };
      const enter = () => {
        leave();
        resolve(this.#enter(queue, entrant));
      };
      const waiter: Waiter = { entrant, enter };
      const timer = setTimeout(onLate, waitMs);
      gone?.addEventListener("abort", onGone, { once: true });
      queue.waiting.add(waiter);
      this.#waiting += 1;
      for (const inside of queue.inside) warn(inside, entrant);
    });
  }
}

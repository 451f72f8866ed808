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

/** Who waits, and may have gone meanwhile. */
export interface Presence {
  readonly gone: boolean;
  /** Calls `listener` when it goes. Returns how to take that back. */
  onGone(listener: () => void): () => void;
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

/** One that is inside. */
class Inside implements Turn {
  readonly entrant: Entrant;
  readonly #onEnd: (inside: Inside) => void;
  #abort: AbortController | undefined;
  #stale: FenceError | undefined;

  constructor(entrant: Entrant, onEnd: (inside: Inside) => void) {
    this.entrant = entrant;
    this.#onEnd = onEnd;
  }

  /** Made when it is asked for: most handlers never look at it, and it costs more than all the rest. */
  get signal(): AbortSignal {
    if (this.#abort === undefined) {
      this.#abort = new AbortController();
      if (this.#stale) this.#abort.abort(this.#stale);
    }
    return this.#abort.signal;
  }

  /** Tells it that it is stale, if it is so because of the one that waits. */
  warn(waiting: Entrant): void {
    const { resource, token } = this.entrant;
    if (this.#stale || waiting.token <= token || together(this.entrant, waiting)) return;
    this.#stale = stale(resource, token, waiting.token);
    this.#abort?.abort(this.#stale);
  }

  end(): void {
    this.#onEnd(this);
  }
}

interface Queue {
  readonly inside: Set<Inside>;
  /** Made when somebody waits: mostly nobody does. */
  waiting?: Set<Waiter>;
}

function together(a: Entrant, b: Entrant): boolean {
  return a.mode === "shared" ? b.mode === "shared" : b.mode === "exclusive" && a.token === b.token;
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
   * Resolves when it is the entrant's turn. Rejects LIMIT when too many wait, when it has waited too long, or when its caller
   * has gone.
   */
  async take(entrant: Entrant, presence: Presence | undefined): Promise<Turn> {
    const queue = this.#queues.get(entrant.resource) ?? { inside: new Set() };
    this.#queues.set(entrant.resource, queue);
    const mayEnter = !queue.waiting?.size && this.#fits(queue, entrant);
    return mayEnter ? this.#enter(queue, entrant) : await this.#wait(queue, entrant, presence);
  }

  #fits({ inside }: Queue, entrant: Entrant): boolean {
    const [one] = inside; // all that are inside go together
    return one === undefined || together(one.entrant, entrant);
  }

  #enter(queue: Queue, entrant: Entrant): Turn {
    const turn = new Inside(entrant, (inside) => {
      if (queue.inside.delete(inside)) this.#advance(entrant.resource, queue);
    });
    queue.inside.add(turn);
    for (const { entrant: waiting } of queue.waiting ?? []) turn.warn(waiting);
    return turn;
  }

  /** Lets in from the front of the queue whoever fits. */
  #advance(resource: string, queue: Queue): void {
    for (const waiter of queue.waiting ?? []) {
      if (!this.#fits(queue, waiter.entrant)) break;
      waiter.enter();
    }
    if (queue.inside.size === 0) this.#queues.delete(resource);
  }

  #wait(queue: Queue, entrant: Entrant, presence: Presence | undefined): Promise<Turn> {
    const { waitingMax, waitingTotalMax, waitMs } = this.#limits;
    const { resource } = entrant;
    queue.waiting ??= new Set();
    const { waiting } = queue;
    if (waiting.size >= waitingMax || this.#waiting >= waitingTotalMax) {
      throw new FenceError("LIMIT", `too many requests wait for their turn at ${show(resource)}`, { resource });
    }
    const gone = () => new FenceError("LIMIT", `the caller at ${show(resource)} has gone`, { resource });
    if (presence?.gone) throw gone();
    return new Promise((resolve, reject) => {
      const leave = () => {
        clearTimeout(timer);
        stay?.();
        waiting.delete(waiter);
        this.#waiting -= 1;
      };
      const giveUp = (reason: unknown) => {
        leave();
        reject(reason);
        this.#advance(resource, queue); // those behind may go together with those inside
      };
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
      const stay = presence?.onGone(() => giveUp(gone()));
      waiting.add(waiter);
      this.#waiting += 1;
      for (const inside of queue.inside) inside.warn(entrant);
    });
  }
}

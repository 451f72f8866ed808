/**
 * One watcher, from its request to its end.
 *
 * It is *live* when every event goes into its queue as it is told, and from there to the transport, as long as that
 * accepts. What comes before:
 *
 * - With a position that the history still has, it is *replaying*: it reads the history behind its position, a slice at
 *   a time, until it has come to the end.
 * - Else it is *listing*. It is told RESET, and then the state, page by page; the listings are commands like any other.
 *   A page shows its locks after all events up to the page's timestamp, and takes its place in the stream by that
 *   timestamp: behind all events up to it, before all later ones. From then on the events of the names up to the end of
 *   the page are told as well; those of names that are not listed yet are not, since their page will show what came of
 *   them. So at each moment the watcher knows exactly the state of the names listed so far. With the last page it is
 *   told SYNCED, and is live.
 * - First, if it wants no state, it is *starting*: an empty command must go through the sequencer, since only a server
 *   that leads may say anything.
 *
 * The queue is bounded. When it is full and the transport accepts nothing the watcher has *lagged*: the queue is dropped,
 * no more events are taken, and when the transport accepts again it starts with RESET and the state anew.
 *
 * Its position is the timestamp up to which it has been told everything. While the state is incomplete it is 0: a watcher
 * that comes back from there must be told the state once more.
 */
import type { ListLocks, LockEvent, LockView, Outcome, Request } from "../core/types.js";
import type { LiveRoute, RouteFailure } from "../sequencer/routes.js";
import { entryBytes, isEvent, type ResetReason, type WatchEntry } from "./entry.js";
import type { History } from "./history.js";
import { covers, type WatchTarget } from "./targets.js";

/** Where a watcher begins. */
export interface WatchStart {
  /** Behind this timestamp. 0: with the state. */
  readonly after: number;
  /** Without `after`: with what happens from now on. */
  readonly fromNow: boolean;
}

/** Where a watcher's entries go. Must not throw, and must not call back before it returns. */
export interface WatchOutput {
  /** `position`: to continue from. Returns false when nothing more is accepted before `drained` is called. */
  write(entries: readonly WatchEntry[], position: number): boolean;
  /** The last call: there will be no more, and why. */
  end(failure: RouteFailure): void;
}

/** What a watcher needs of the hub. */
export interface WatcherHost {
  readonly history: History;
  /** All events up to this timestamp have been told. */
  readonly told: number;
  readonly queueEventsMax: number;
  /** For display. */
  wallMs(): number;
  submit(request: Request, route: LiveRoute): RouteFailure | null;
  /** Asks for one call of `advance`, in a turn of the event loop that has room for it. */
  wantTurn(subscriber: Subscriber): void;
  /** From now on events of the target are offered, */
  listen(subscriber: Subscriber): void;
  /** and from now on no more. */
  unlisten(subscriber: Subscriber): void;
  /** The batch that is being told has something for it: `flush` it at the end of that batch. */
  touched(subscriber: Subscriber): void;
  lagged(): void;
  gone(subscriber: Subscriber): void;
}

/** Locks on one page of the state, and events on one slice of the history. */
const PAGE_LOCKS = 256;
const SLICE_EVENTS = 4_096;
/** About how large one response becomes; events with the same timestamp are never told apart. */
const RESPONSE_BYTES = 64 << 10;

type Phase = "starting" | "replaying" | "listing" | "live" | "lagged" | "over";

interface Page {
  readonly locks: readonly LockView[];
  /** The names up to this one are covered; "": all. */
  readonly next: string;
  readonly timestamp: number;
}

export class Subscriber {
  readonly target: WatchTarget;
  readonly principal: string;
  readonly #host: WatcherHost;
  readonly #output: WatchOutput;
  #phase: Phase = "starting";
  #queue: WatchEntry[] = [];
  /** Events in the queue. */
  #events = 0;
  #accepting = true;
  /** What the last response said; -1: there was none. */
  #position = -1;
  /** Whether what has been written is complete up to some timestamp. */
  #synced = true;
  /** The command that has not been answered. */
  #asked: LiveRoute | null = null;
  /** starting, replaying: up to where it has been told, or was told before. */
  #cursor = 0;
  /** listing: the names up to this one are in the stream. */
  #listedTo = "";
  /** listing: waits for its place. */
  #page: Page | null = null;

  constructor(target: WatchTarget, principal: string, host: WatcherHost, output: WatchOutput) {
    this.target = target;
    this.principal = principal;
    this.#host = host;
    this.#output = output;
  }

  start({ after, fromNow }: WatchStart): void {
    if (after === 0 && !fromNow) {
      this.#reset("start");
      return;
    }
    this.#cursor = after;
    const failure = this.#ask({ kind: "status" });
    if (failure !== null) this.end(failure);
  }

  #begin(): void {
    const { history, told } = this.#host;
    if (this.#cursor === 0) this.#goLive();
    else if (this.#cursor < history.base || this.#cursor > told) this.#reset("forgotten");
    else {
      this.#phase = "replaying";
      this.#askForTurn();
    }
  }

  // ------------------------------------------------------------------------------------------ from the hub

  /** An event of the target, as it is told. */
  event(event: LockEvent): void {
    if (this.#phase === "listing") {
      this.#placePage(event.timestamp - 1);
      if (this.#phase === "listing" && event.name > this.#listedTo) return;
    }
    if (this.#events >= this.#host.queueEventsMax) {
      this.#drain(event.timestamp - 1); // a batch may hold more than the queue
      if (!this.#accepting && this.#events >= this.#host.queueEventsMax) {
        this.#lag();
        return;
      }
    }
    this.#queue.push(event);
    this.#events++;
    this.#host.touched(this);
  }

  /** The batch is told. */
  flush(): void {
    this.#placePage(this.#host.told);
    this.#drain(this.#complete());
    this.#askForTurn();
  }

  /** Goes on with what is not live: one page or one slice. False: the sequencer takes nothing now, try again later. */
  advance(): boolean {
    if (!this.#mayAdvance()) return true;
    if (this.#phase === "replaying") {
      this.#replay();
      return true;
    }
    const failure = this.#ask(this.#listing());
    if (failure?.reason === "LIMIT") return false;
    if (failure !== null) this.end(failure);
    return true;
  }

  /** Tells a watcher whose locks are quiet how far it has come, so that its position does not grow old. */
  beat(): void {
    if (this.#phase !== "live" || !this.#accepting || this.#position >= this.#host.told) return;
    this.#write([], this.#host.told);
  }

  end(failure: RouteFailure): void {
    if (this.#phase === "over") return;
    this.close();
    this.#output.end(failure);
  }

  // ------------------------------------------------------------------------------------------ from the transport

  /** After `write` returned false: it may be called again. */
  drained(): void {
    this.#accepting = true;
    if (this.#phase === "lagged") this.#reset("lagged");
    else this.#drain(this.#complete());
    this.#askForTurn();
  }

  /** The client has gone. */
  close(): void {
    if (this.#phase === "over") return;
    this.#forget();
    this.#phase = "over";
    this.#host.gone(this);
  }

  // ------------------------------------------------------------------------------------------ catching up

  #reset(reason: ResetReason): void {
    this.#forget();
    this.#phase = "listing";
    this.#listedTo = "";
    this.#queue.push({ kind: "reset", timestamp: this.#host.told, reason });
    this.#host.listen(this);
    this.#drain(this.#host.told);
    this.#askForTurn();
  }

  #lag(): void {
    this.#forget();
    this.#phase = "lagged";
    this.#host.lagged();
  }

  #forget(): void {
    this.#host.unlisten(this);
    this.#queue = [];
    this.#events = 0;
    this.#asked = null;
    this.#page = null;
  }

  #goLive(): void {
    this.#phase = "live";
    this.#host.listen(this);
    this.#drain(this.#host.told);
    this.beat();
  }

  #replay(): void {
    const { history } = this.#host;
    if (this.#cursor < history.base) {
      this.#lag();
      this.#reset("lagged"); // the transport accepts
      return;
    }
    const readTo = history.read(this.#cursor, SLICE_EVENTS, (event) => {
      if (!covers(this.target, event.name)) return;
      this.#queue.push(event);
      this.#events++;
    });
    if (readTo === null) {
      this.#goLive();
      return;
    }
    this.#cursor = readTo;
    this.#drain(readTo);
    this.#askForTurn();
  }

  #listing(): ListLocks {
    const { target } = this;
    const wallMs = this.#host.wallMs();
    // The lock of that name, if it exists, is the first of those that begin with it.
    if (target.kind === "name") return { kind: "listLocks", prefix: target.name, after: "", limit: 1, wallMs };
    return { kind: "listLocks", prefix: target.prefix, after: this.#listedTo, limit: PAGE_LOCKS, wallMs };
  }

  #take(outcome: Extract<Outcome, { kind: "locks" }>): void {
    const next = this.target.kind === "name" ? "" : outcome.next;
    const locks = outcome.locks.filter((lock) => covers(this.target, lock.name));
    this.#page = { locks, next, timestamp: outcome.timestamp };
    this.#host.touched(this); // the batch of the reply is told next
  }

  /** Puts the page that was read into the stream if all events up to its timestamp are in it, which are those `upTo`. */
  #placePage(upTo: number): void {
    if (this.#page === null || this.#page.timestamp > upTo) return;
    const { locks, next, timestamp } = this.#page;
    this.#page = null;
    for (const lock of locks) this.#queue.push({ kind: "state", timestamp, lock });
    this.#listedTo = next;
    if (next !== "") return;
    this.#queue.push({ kind: "synced", timestamp });
    this.#phase = "live";
  }

  #ask(request: Request): RouteFailure | null {
    const route: LiveRoute = {
      kind: "call",
      deliver: (reply) => {
        if (this.#asked === route && reply.kind === "outcome") this.#answered(reply.outcome);
      },
      flush: () => {},
      fail: (failure) => {
        // Of a read no outcome can be unknown.
        const reason = failure.reason === "OUTCOME_UNKNOWN" ? "STORE_DOWN" : failure.reason;
        if (this.#asked === route) this.end({ ...failure, reason });
      },
    };
    this.#asked = route; // before it is handed over: it may be answered at once
    const failure = this.#host.submit(request, route);
    if (failure !== null) this.#asked = null;
    return failure;
  }

  #answered(outcome: Outcome): void {
    this.#asked = null;
    if (outcome.kind === "status") this.#begin();
    else if (outcome.kind === "locks") this.#take(outcome);
    else {
      const message = outcome.kind === "refused" ? outcome.message : `a listing came to ${outcome.kind}`;
      this.end({ reason: "STORE_DOWN", message, retryAfterMs: 1_000 });
    }
  }

  #askForTurn(): void {
    if (this.#mayAdvance()) this.#host.wantTurn(this);
  }

  #mayAdvance(): boolean {
    if (!this.#accepting || this.#queue.length > 0) return false;
    return this.#phase === "replaying" || (this.#phase === "listing" && this.#page === null && this.#asked === null);
  }

  // ------------------------------------------------------------------------------------------ writing

  /** All events of the target up to this timestamp are in the stream. */
  #complete(): number {
    return this.#phase === "replaying" ? this.#cursor : this.#host.told;
  }

  /** Writes what is in the queue up to `complete`, while the transport accepts. */
  #drain(complete: number): void {
    while (this.#accepting && this.#queue.length > 0) {
      const entries = this.#queue.splice(0, this.#cut(complete));
      const last = entries.at(-1);
      if (last === undefined) return;
      for (const entry of entries) {
        if (isEvent(entry)) this.#events--;
        else this.#synced = entry.kind === "synced";
      }
      this.#write(entries, this.#queue.length === 0 ? complete : last.timestamp);
    }
  }

  /** How many entries the next response has. */
  #cut(complete: number): number {
    let sum = 0;
    let before: WatchEntry | undefined;
    for (const [index, entry] of this.#queue.entries()) {
      if (entry.timestamp > complete) return index;
      sum += entryBytes(entry);
      const together = isEvent(entry) && entry.timestamp === before?.timestamp;
      if (sum > RESPONSE_BYTES && before !== undefined && !together) return index;
      before = entry;
    }
    return this.#queue.length;
  }

  #write(entries: readonly WatchEntry[], position: number): void {
    this.#position = this.#synced ? position : 0;
    this.#accepting = this.#output.write(entries, this.#position);
  }
}

/**
 * What happens to locks, as it happens: server-sent events, out of the same hub as the watches of clients.
 *
 * A message `changes` has the events, and as its id the position to continue from, which comes back in Last-Event-ID.
 * Nobody can read thousands of events a second, nor can a browser: a stream has a budget, and what is beyond it is only
 * counted (`skipped`), so that the reader looks at the state anew. Likewise a reader that falls behind, or whose position
 * is not in the history any more, is told `reset` and its stream ends; it reads the state and begins from now. (Who
 * must have every event watches by gRPC.)
 *
 * Streams are bounded well below the connections of this port, so that probes and scrapes find a place. A reader that
 * reads nothing at all is dropped by the time limit of idle sockets: heartbeats go only to those who read.
 */
import type { ServerResponse } from "node:http";
import type { Refusal } from "../../core/types.js";
import { badOptionalText, badText, invalid } from "../../rpc/check.js";
import type { WireFailure } from "../../rpc/errors.js";
import type { RouteFailure } from "../../sequencer/routes.js";
import { isEvent, type ResetReason, type WatchEntry } from "../../watch/entry.js";
import type { Subscriber, WatchOutput } from "../../watch/subscriber.js";
import type { WatchTarget } from "../../watch/targets.js";
import { failed, refused } from "../answer.js";
import type { WallTimes } from "../wall-times.js";
import type { ApiContext, ApiRoute } from "./context.js";
import { eventBody } from "./event-body.js";
import { badParameters } from "./query.js";

/** Of 64 connections on this port. */
export const STREAMS_MAX = 16;
/** Below the limit of idle sockets. */
const HEARTBEAT_MS = 4_000;
/** Events that one stream is told in one second. */
const EVENTS_PER_SECOND_MAX = 200;

/** All open streams. */
export class EventStreams {
  readonly #open = new Set<EventStream>();

  get full(): boolean {
    return this.#open.size >= STREAMS_MAX;
  }

  add(stream: EventStream): void {
    this.#open.add(stream);
  }

  delete(stream: EventStream): void {
    this.#open.delete(stream);
  }
}

export const events: ApiRoute = (context, { query, http, response, identity }) => {
  const bad = badParameters(query, ["prefix", "name"]);
  if (bad !== null) return refused(bad);
  const target = readTarget(query, context);
  if (target.kind === "refused") return refused(target);
  const after = readPosition(http.headers["last-event-id"]);
  if (after === null) return refused(invalid("Last-Event-ID is none of this stream's ids"));
  const name = target.kind === "name" ? target.name : target.prefix;
  const denied = identity.permits({ verb: "observe", name, prefix: target.kind === "prefix" });
  if (denied !== null) return refused(denied);
  if (context.streams.full) return failed(limit);

  const stream = new EventStream(response, context);
  const watcher = context.watch.watch(target, { after, fromNow: after === 0 }, stream, identity.principal.name);
  if ("reason" in watcher) return failed(watcher);
  stream.begin(
    watcher,
    identity.onWithdrawn((failure) => stream.end(failure)),
  );
  return null;
};

const limit: WireFailure = {
  reason: "LIMIT",
  message: `more than ${STREAMS_MAX} streams of events are open`,
  retryAfterMs: 5_000,
};

function readTarget(query: URLSearchParams, { coreLimits }: ApiContext): WatchTarget | Refusal {
  const name = query.get("name");
  const prefix = query.get("prefix") ?? "";
  if (name === null) {
    return badOptionalText("prefix", prefix, coreLimits.nameBytesMax) ?? { kind: "prefix", prefix };
  }
  if (query.has("prefix")) return invalid("either name or prefix, not both");
  return badText("name", name, coreLimits.nameBytesMax) ?? { kind: "name", name };
}

/** 0: from now on. Null: it is no position. */
function readPosition(header: string | string[] | undefined): number | null {
  if (header === undefined) return 0;
  const position = typeof header === "string" && /^\d{1,16}$/.test(header) ? Number(header) : Number.NaN;
  return Number.isSafeInteger(position) && position > 0 ? position : null;
}

class EventStream implements WatchOutput {
  readonly #response: ServerResponse;
  readonly #streams: EventStreams;
  readonly #wallTimes: WallTimes;
  #watcher: Subscriber | null = null;
  #forget: () => void = () => undefined;
  #heartbeat: NodeJS.Timeout | undefined;
  #blocked = false;
  #over = false;
  #budget = EVENTS_PER_SECOND_MAX;
  #budgetMs = performance.now();

  constructor(response: ServerResponse, { streams, wallTimes }: ApiContext) {
    this.#response = response;
    this.#streams = streams;
    this.#wallTimes = wallTimes;
    response.on("drain", () => this.#drained());
    response.on("close", () => this.#close());
  }

  begin(watcher: Subscriber, forget: () => void): void {
    this.#watcher = watcher;
    this.#forget = forget;
    this.#streams.add(this);
    // The watch may have ended as it began, and the reader may have gone while somebody asked who it is.
    if (this.#over || this.#response.destroyed) {
      this.#close();
      return;
    }
    this.#heartbeat = setInterval(() => this.#beat(), HEARTBEAT_MS).unref();
    this.#send(": live\n\n");
  }

  write(entries: readonly WatchEntry[], position: number): boolean {
    const reset = entries.find((entry) => entry.kind === "reset");
    if (reset?.kind === "reset") {
      this.#reset(reset.reason);
      return false;
    }
    const told = entries.filter(isEvent).slice(0, this.#take(entries.length));
    const events = told.map((event) => eventBody(event, this.#wallTimes.of(event.timestamp)));
    const skipped = entries.length - told.length;
    const id = position > 0 ? `id: ${position}\n` : ""; // nothing has ever happened: then it is "from now on"
    this.#send(`${id}event: changes\ndata: ${JSON.stringify({ events, skipped })}\n\n`);
    return !this.#blocked;
  }

  end(failure: RouteFailure | WireFailure): void {
    const { reason, message, retryAfterMs } = failure;
    this.#finish("failed", { reason, message, retryAfterMs });
  }

  #reset(reason: ResetReason): void {
    this.#finish("reset", { reason });
  }

  /** As much of the budget as is there. */
  #take(wanted: number): number {
    const nowMs = performance.now();
    if (nowMs - this.#budgetMs >= 1_000) {
      this.#budget = EVENTS_PER_SECOND_MAX;
      this.#budgetMs = nowMs;
    }
    const taken = Math.min(wanted, this.#budget);
    this.#budget -= taken;
    return taken;
  }

  /** The headers leave with the first message: a watch that is refused at once is answered like any other request. */
  #send(text: string): void {
    const response = this.#response;
    if (this.#over) return;
    if (!response.headersSent) {
      response.writeHead(200, {
        "content-type": "text/event-stream; charset=utf-8",
        "cache-control": "no-store",
        "x-content-type-options": "nosniff",
        "x-accel-buffering": "no", // proxies would collect it
      });
    }
    if (!response.write(text)) this.#blocked = true;
  }

  #beat(): void {
    if (!this.#blocked) this.#send(": beat\n\n");
  }

  #drained(): void {
    this.#blocked = false;
    if (!this.#over) this.#watcher?.drained();
  }

  #finish(event: string, data: object): void {
    if (this.#over) return;
    this.#send(`event: ${event}\ndata: ${JSON.stringify(data)}\n\n`);
    this.#over = true;
    // The hub must not be called back from here. The connection has nothing else to carry.
    setImmediate(() => {
      this.#close();
      this.#response.end();
    });
  }

  #close(): void {
    this.#over = true;
    clearInterval(this.#heartbeat);
    this.#forget();
    this.#watcher?.close();
    this.#streams.delete(this);
  }
}

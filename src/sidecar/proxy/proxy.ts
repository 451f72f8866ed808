/**
 * The fencing proxy: an application that knows nothing of locks speaks plain HTTP to it, and what reaches the storage
 * carries the token of the lock.
 *
 *     application  ->  sidecar, holds the lock  ->  storage, with a fence
 *     PUT /orders/42   Fencing-Token: 33            checks the token
 *                      Lamport-Timestamp: 7120
 *
 * While the lock is not held nothing goes on: 503. The question is asked at the last moment, when the connection to the
 * storage stands and the first byte is to be written, and again for every piece of a body: a process that was stopped in
 * between learns there that its lock is gone. When the lock is lost, what is in flight is cut off, in both directions.
 *
 * What has left before the loss may arrive after it. That is what the fence is for.
 */
import { Agent as HttpAgent, type IncomingMessage, type ServerResponse } from "node:http";
import { Agent as HttpsAgent } from "node:https";
import type { Client, Leadership } from "@leasehold/client";
import { HttpProblem } from "../http/problem.js";
import { type Keeper, over } from "../term/keeper.js";
import { Forward } from "./forward.js";

export interface ProxySettings {
  /** http: or https:, with a path before all others if it has one. */
  readonly target: URL;
  /** Of one request. */
  readonly bodyBytesMax: number;
  /** Without a byte in either direction. */
  readonly idleMsMax: number;
}

export interface ProxyOptions extends ProxySettings {
  readonly keeper: Keeper;
  /** Throws UNREACHABLE while there is none. */
  readonly client: () => Client;
  readonly onOutcome: (outcome: Outcome) => void;
}

export type Outcome = "forwarded" | "refused" | "aborted" | "failed";

/** Requests on their way at the same time. */
const IN_FLIGHT_MAX = 1_000;
const IDLE_SOCKETS_MAX = 64;
const RETRY_AFTER = { "retry-after": "1" };

export class FencingProxy {
  readonly #options: ProxyOptions;
  readonly agent: HttpAgent;
  readonly #inFlight = new Set<Forward>();
  #draining = false;
  #idle: () => void = () => {};

  constructor(options: ProxyOptions) {
    this.#options = options;
    const settings = { keepAlive: true, maxSockets: IN_FLIGHT_MAX, maxFreeSockets: IDLE_SOCKETS_MAX };
    this.agent = options.target.protocol === "https:" ? new HttpsAgent(settings) : new HttpAgent(settings);
    options.keeper.add(async (_term, signal) => {
      await over(signal);
      for (const forward of this.#inFlight) forward.lost();
    });
  }

  get inFlight(): number {
    return this.#inFlight.size;
  }

  get held(): boolean {
    return this.#options.keeper.term !== null;
  }

  /** Forwards a request, or throws why not. */
  handle(request: IncomingMessage, response: ServerResponse): void {
    const { onOutcome, client } = this.#options;
    let term: Leadership;
    try {
      term = this.#admit(request);
    } catch (error) {
      onOutcome("refused");
      throw error;
    }
    const forward = new Forward(request, response, {
      ...this.#options,
      term,
      agent: this.agent,
      clock: client().clock,
      onEnd: (outcome) => {
        this.#inFlight.delete(forward);
        onOutcome(outcome);
        if (this.#inFlight.size === 0) this.#idle();
      },
    });
    this.#inFlight.add(forward);
    forward.start();
  }

  #admit(request: IncomingMessage): Leadership {
    checkForm(request, this.#options.bodyBytesMax);
    if (this.#draining) throw refusal("CLOSED", "the sidecar is stopping");
    const { term } = this.#options.keeper;
    if (term === null) throw refusal("LOST", "the lock is not held: nothing is forwarded");
    if (this.#inFlight.size >= IN_FLIGHT_MAX) {
      throw refusal("LIMIT", `${IN_FLIGHT_MAX} requests are being forwarded; that is the limit`);
    }
    return term;
  }

  /** Takes no more requests, and resolves when those on their way have ended, or the time is over. */
  async drain(msMax: number): Promise<void> {
    this.#draining = true;
    if (this.#inFlight.size > 0) {
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, msMax);
        this.#idle = () => {
          clearTimeout(timer);
          resolve();
        };
      });
    }
  }

  close(): void {
    for (const forward of this.#inFlight) forward.lost();
    this.agent.destroy();
  }
}

/** Throws INVALID. */
function checkForm({ url, method, headers }: IncomingMessage, bodyBytesMax: number): void {
  if (url === undefined || !url.startsWith("/")) throw new HttpProblem(400, "INVALID", "only paths are forwarded");
  if (method === "TRACE") throw new HttpProblem(405, "INVALID", "TRACE is not forwarded");
  // An upgrade to HTTP/2 may be passed over, and some clients offer it with every request.
  const upgrade = headers.upgrade?.toLowerCase();
  if (upgrade !== undefined && upgrade !== "h2c") {
    throw new HttpProblem(501, "INVALID", "the proxy forwards requests, not upgraded connections");
  }
  if (Number(headers["content-length"] ?? 0) > bodyBytesMax) {
    throw new HttpProblem(413, "INVALID", `the body is longer than ${bodyBytesMax} bytes`);
  }
}

const refusal = (code: string, message: string): HttpProblem =>
  new HttpProblem(503, code, message, { retryable: true, headers: RETRY_AFTER });

/**
 * One request on its way through the proxy, in both directions and without being kept: what one side does not take, the
 * other does not send.
 */
import {
  type ClientRequest,
  type Agent as HttpAgent,
  type IncomingMessage,
  request as requestHttp,
  type ServerResponse,
} from "node:http";
import { request as requestHttps } from "node:https";
import type { Readable, Writable } from "node:stream";
import { type Clock, type Leadership, LeaseholdError } from "@leasehold/client";
import { HttpProblem, problemOf } from "../http/problem.js";
import { send } from "../http/send.js";
import { followHeader } from "../lamport.js";
import { forApplication, forStorage, TIMESTAMP_HEADER, TOKEN_HEADER } from "./headers.js";
import type { Outcome, ProxySettings } from "./proxy.js";

export interface ForwardOptions extends ProxySettings {
  readonly term: Leadership;
  readonly clock: Clock;
  readonly agent: HttpAgent;
  /** Called once. */
  readonly onEnd: (outcome: Outcome) => void;
}

const VIA = "1.1 leasehold-sidecar";
const RETRY_AFTER = { "retry-after": "1" };
/** May be sent again when a connection that was kept open turns out to be closed. */
const REPEATABLE = new Set(["GET", "HEAD"]);

export class Forward {
  readonly #request: IncomingMessage;
  readonly #response: ServerResponse;
  readonly #options: ForwardOptions;
  #upstream: ClientRequest | null = null;
  #repeated = false;
  #ended = false;

  constructor(request: IncomingMessage, response: ServerResponse, options: ForwardOptions) {
    this.#request = request;
    this.#response = response;
    this.#options = options;
    response.once("close", () => {
      if (!response.writableFinished) return this.#giveUp("failed");
      this.#end("forwarded");
      // Answered before all of the request was there: its connection is of no use to anybody else.
      if (this.#upstream?.writableFinished === false) this.#upstream.destroy();
    });
  }

  start(): void {
    const { target, agent, idleMsMax } = this.#options;
    const { method = "GET", url = "/", rawHeaders } = this.#request;
    const secure = target.protocol === "https:";
    const upstream = (secure ? requestHttps : requestHttp)(target, {
      method,
      agent,
      path: target.pathname.replace(/\/$/, "") + url,
    });
    this.#upstream = upstream;
    for (const [name, values] of forStorage(rawHeaders)) {
      upstream.setHeader(name, values.length === 1 ? (values[0] as string) : values);
    }
    upstream.appendHeader("via", VIA);
    upstream.setTimeout(idleMsMax, () => this.#fail(504, "UNREACHABLE", "the storage does not answer"));
    upstream.on("error", (error: NodeJS.ErrnoException) => this.#onError(upstream, error));
    upstream.once("response", (answer) => this.#answer(answer));
    upstream.once("socket", (socket) => {
      if (socket.connecting) socket.once(secure ? "secureConnect" : "connect", () => this.#send(upstream));
      else this.#send(upstream);
    });
  }

  /** The lock is gone. */
  lost(): void {
    this.#fail(
      503,
      "LOST",
      "the lock was lost while the request was on its way; whether it had an effect is not known",
    );
  }

  /** The connection stands: now or never. */
  #send(upstream: ClientRequest): void {
    if (this.#ended) return;
    const { clock } = this.#options;
    const token = this.#token();
    if (token === null) return;
    followHeader(clock, this.#request.headers[TIMESTAMP_HEADER]);
    upstream.setHeader(TOKEN_HEADER, String(token));
    upstream.setHeader(TIMESTAMP_HEADER, String(clock.tick()));
    if (!hasBody(this.#request)) {
      upstream.end();
      return;
    }
    if (this.#request.headers["content-length"] === undefined) upstream.setHeader("transfer-encoding", "chunked");
    let bytes = 0;
    this.#carry(this.#request, upstream, (chunk) => {
      bytes += chunk.length;
      if (bytes <= this.#options.bodyBytesMax) return true;
      this.#fail(413, "INVALID", `the body is longer than ${this.#options.bodyBytesMax} bytes`);
      return false;
    });
  }

  #answer(answer: IncomingMessage): void {
    if (this.#ended || !this.#held()) return;
    const { clock } = this.#options;
    const response = this.#response;
    followHeader(clock, answer.headers[TIMESTAMP_HEADER]);
    try {
      for (const [name, values] of forApplication(answer.rawHeaders)) response.setHeader(name, values);
      response.setHeader(TIMESTAMP_HEADER, String(clock.now()));
      response.writeHead(answer.statusCode ?? 502);
    } catch {
      for (const name of response.getHeaderNames()) response.removeHeader(name);
      this.#fail(502, "UNREACHABLE", "the storage answered what is no valid answer");
      return;
    }
    answer.once("close", () => {
      if (!answer.complete) this.#giveUp("failed");
    });
    answer.on("error", () => this.#giveUp("failed"));
    this.#carry(answer, response, () => true);
  }

  /** Carries a body over, piece by piece, for as long as the lock is held. */
  #carry(from: Readable, to: Writable, accept: (chunk: Buffer) => boolean): void {
    from.on("data", (chunk: Buffer) => {
      if (this.#ended || !this.#held() || !accept(chunk)) return;
      if (to.write(chunk)) return;
      from.pause();
      to.once("drain", () => from.resume());
    });
    from.once("end", () => {
      if (!this.#ended && this.#held()) to.end();
    });
  }

  /** The token if the lock is held; null, and the end of what is on its way, if not. One look: time passes between two. */
  #token(): number | null {
    try {
      return this.#options.term.token;
    } catch (error) {
      if (!LeaseholdError.is(error)) throw error;
      this.lost();
      return null;
    }
  }

  /** Asks the clock, not what was heard. What is on its way ends here if not. */
  #held(): boolean {
    const { is } = this.#options.term.state;
    if (is === "held" || is === "jeopardy") return true;
    this.lost();
    return false;
  }

  #onError(upstream: ClientRequest, error: NodeJS.ErrnoException): void {
    if (this.#ended || upstream !== this.#upstream) return;
    const { method = "" } = this.#request;
    const stale = upstream.reusedSocket && error.code === "ECONNRESET" && !this.#response.headersSent;
    if (stale && !this.#repeated && REPEATABLE.has(method) && !hasBody(this.#request)) {
      this.#repeated = true;
      this.start();
      return;
    }
    this.#fail(502, "UNREACHABLE", `the storage cannot be reached (${error.code ?? error.message})`);
  }

  #fail(status: number, code: string, message: string): void {
    if (this.#ended) return;
    const outcome = code === "LOST" ? "aborted" : "failed";
    if (this.#response.headersSent) {
      this.#giveUp(outcome);
      return;
    }
    this.#end(outcome);
    this.#upstream?.destroy();
    const problem = new HttpProblem(status, code, message, {
      retryable: status >= 500,
      headers: status === 503 ? RETRY_AFTER : {},
    });
    send(
      this.#request,
      this.#response,
      problemOf(problem, () => {}),
    );
  }

  /** Neither side hears more than that it broke off. */
  #giveUp(outcome: Outcome): void {
    if (this.#ended) return;
    this.#end(outcome);
    this.#upstream?.destroy();
    this.#response.destroy();
  }

  #end(outcome: Outcome): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#options.onEnd(outcome);
  }
}

/** A request has a body exactly if it says so (RFC 9112, 6). */
const hasBody = ({ headers }: IncomingMessage): boolean =>
  headers["transfer-encoding"] !== undefined || Number(headers["content-length"] ?? 0) > 0;

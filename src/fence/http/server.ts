/**
 * The server's side of a fence over HTTP. A request to something that is guarded carries the token of its lock:
 *
 *     PUT /orders/42 HTTP/1.1              HTTP/1.1 409 Conflict
 *     Fencing-Token: 33                    Content-Type: application/problem+json
 *     (Fencing-Mode: shared)
 *                                          {"type": "urn:problem-type:leasehold:stale-token", "status": 409,
 *                                           "code": "STALE_TOKEN", "resource": "orders/42", "token": 33, "floor": 34, …}
 *
 * What it is checked for is said by the service, which knows what the request writes to. The logic is in
 * ../admission/admission.ts, which also says what admission alone does not do.
 *
 * With turns a service has to know when a handler has ended. The end of the response does not tell: a caller that is
 * impatient and hangs up closes the response, and the handler goes on writing.
 *
 *     token 33: admitted; its handler is slow, its caller hangs up     (response: closed)
 *     token 34: admitted, since nobody is inside; writes; done
 *     token 33: its handler writes
 *
 * So with turns the handler itself is wrapped, and has ended when the promise that it returned is settled.
 */
import { ADMISSION_OPTIONS, Admission, type AdmissionOptions, type Admitted } from "../admission/admission.js";
import { isClock, type MessageClock } from "../admission/clock.js";
import { MODE_HEADER, readPresented, TOKEN_HEADER } from "../admission/presented.js";
import { askedOf, type Guarded } from "../admission/target.js";
import type { Presence } from "../admission/turns.js";
import { FenceError, invalid } from "../errors.js";
import { checkKeys } from "../token.js";
import { answerFloor } from "./endpoint.js";
import { type Answer, plainProblem, problemOf, TokenRequired } from "./problem.js";
import { stampWhenSent, takeNote } from "./stamp.js";
import type { FastifyReply, HttpRequest, HttpResponse, Next } from "./types.js";

export interface HttpFenceOptions<Req extends HttpRequest = HttpRequest> extends AdmissionOptions<Req> {
  /**
   * What the request writes to: the name of its lock, or `{ name, slot }` where one permit of a semaphore guards it, or null
   * if it is not fenced. Never take it from a header that the caller chooses. A name that no lock can have is answered 400.
   */
  readonly resource: (req: Req) => Guarded | Promise<Guarded>;
  /** Whether a fenced request must have a token. Otherwise those without one are let through unchecked. Default: true. */
  readonly required?: boolean | undefined;
  /** `client.clock`: follows the Lamport timestamps of admitted requests, and puts one on their responses (HTTP/1.1). */
  readonly clock?: MessageClock | undefined;
  /** Who may read and reset floors at the endpoint. Default: nobody. */
  readonly admin?: ((req: Req) => boolean | Promise<boolean>) | undefined;
  /**
   * Hears the cause of each answer with 503, which the caller does not hear; and with `node` and `endpoint` of each 500, which
   * is otherwise a process warning.
   */
  readonly onError?: ((error: unknown) => void) | undefined;
}

const OPTIONS = [...ADMISSION_OPTIONS, "resource", "required", "clock", "admin", "onError"];

/** What comes of a request: it is refused, or goes on, and says when it has ended. */
type Entry = { readonly refusal: Answer } | Open;

interface Open {
  readonly refusal?: undefined;
  readonly end: () => void;
}

/** What is not fenced goes on. */
const OPEN: Open = { end: () => {} };

/** A fence in front of handlers. Made by `httpFence`. */
export class HttpFence<Req extends HttpRequest = HttpRequest> {
  readonly #admission: Admission<Req>;
  readonly #options: HttpFenceOptions<Req>;

  /** Use `httpFence`. */
  constructor(options: HttpFenceOptions<Req>) {
    checkKeys(options, OPTIONS, "the options of httpFence()");
    const { resource, required = true, clock, admin, onError } = options;
    for (const [name, f] of Object.entries({ resource, admin, onError })) {
      if (typeof f !== "function" && (f !== undefined || name === "resource"))
        throw invalid(`${name} must be a function`);
    }
    if (typeof required !== "boolean") throw invalid("required must be true or false");
    if (clock !== undefined && !isClock(clock)) throw invalid("clock must have inject and extract: client.clock has");
    this.#admission = new Admission(options);
    this.#options = options;
  }

  /** What was admitted with a request, also at `req.fence`. Undefined: the request was not fenced. */
  of(req: Req): Admitted | undefined {
    return (req as { fence?: Admitted }).fence;
  }

  /**
   * A listener for `node:http` that calls the handler with what is admitted. With `serialize` the handler returns a promise.
   * Rejects with what the handler throws.
   *
   * @example
   * createServer(fence.node(async (req, res) => {
   *   await save(req);
   *   res.end("saved");
   * }));
   */
  node<R extends Req, Res extends HttpResponse>(
    handler: (req: R, res: Res) => unknown,
  ): (req: R, res: Res) => Promise<void> {
    return async (req, res) => {
      const entry = await this.#entry(req, res).catch((error: unknown) => this.#failed(error));
      if (entry.refusal) send(res, entry.refusal);
      else await this.#run(entry, res, () => handler(req, res));
    };
  }

  /**
   * For express: without a handler a middleware, with one a handler that is called with what is admitted. With `serialize` a
   * handler is needed, and returns a promise. Throws INVALID.
   *
   * @example
   * app.put("/orders/:id", fence.express(async (req, res) => {
   *   await save(req.params.id, req.body);
   *   res.json({ saved: true });
   * }));
   */
  express<R extends Req = Req, Res extends HttpResponse = HttpResponse>(
    handler?: (req: R, res: Res, next: Next) => unknown,
  ): (req: R, res: Res, next: Next) => Promise<void> {
    this.#needsHandler(handler, "express");
    return async (req, res, next) => {
      try {
        const entry = await this.#entry(req, res);
        if (entry.refusal) return send(res, entry.refusal);
        if (handler) return void (await this.#run(entry, res, () => handler(req, res, next)));
      } catch (error) {
        return next(error);
      }
      next();
    };
  }

  /**
   * For fastify: without a handler a hook (`preHandler`, or `onRequest` if the resource does not depend on the body), with one
   * a handler that is called with what is admitted. With `serialize` a handler is needed, and returns a promise. Throws
   * INVALID.
   *
   * @example
   * app.put("/orders/:id", fence.fastify(async (request) => {
   *   await save(request.params.id, request.body);
   *   return { saved: true };
   * }));
   */
  fastify<R extends Req = Req, Reply extends FastifyReply = FastifyReply>(
    handler?: (request: R, reply: Reply) => unknown,
  ): (request: R, reply: Reply) => Promise<unknown> {
    this.#needsHandler(handler, "fastify");
    return async (request, reply) => {
      const entry = await this.#entry(request, reply.raw);
      if (entry.refusal) return answerWith(reply, entry.refusal);
      return handler && (await this.#run(entry, reply.raw, () => handler(request, reply)));
    };
  }

  /**
   * A listener at which floors are raised at the grant, by `httpFenceClient`. PUT raises, under the same conditions as each
   * fenced request; GET and DELETE, which read and reset, need `admin`. The lock is named in the query:
   * `?name=orders%2F42`, and `&slot=3`. Mount it where you like.
   *
   * @example
   * app.use("/.well-known/leasehold-fence", fence.endpoint()); // express
   * app.all("/.well-known/leasehold-fence", (request, reply) => {  // fastify
   *   reply.hijack();
   *   return fence.endpoint()(request, reply.raw);
   * });
   */
  endpoint(): (req: Req, res: HttpResponse) => Promise<void> {
    const { admin } = this.#options;
    const answering = (req: Req, res: HttpResponse) =>
      answerFloor(this.#admission, admin, req, new Present(res)).catch((error: unknown) =>
        this.#refusalFor(req, error),
      );
    return async (req, res) => {
      send(res, await answering(req, res).catch((error: unknown) => this.#failed(error).refusal));
    };
  }

  #needsHandler(handler: unknown, framework: string): void {
    if (handler !== undefined && typeof handler !== "function") throw invalid("the handler must be a function");
    if (handler !== undefined || !this.#admission.serializes) return;
    throw invalid(`with serialize the end of the handler must be known: give it, ${framework}(async (…) => …)`);
  }

  /** Rejects with what `resource` and `authorize` throw. */
  async #entry(req: Req, res: HttpResponse): Promise<Entry> {
    const { resource, required = true } = this.#options;
    const guarded = await resource(req);
    if (guarded === null) return OPEN;
    try {
      const presented = readPresented(req.headers[TOKEN_HEADER], req.headers[MODE_HEADER]);
      if (presented === undefined) {
        if (required) throw new TokenRequired();
        return OPEN;
      }
      const { admitted, end } = await this.#admission.admit(req, askedOf(guarded, presented), new Present(res));
      this.#stamp(req, res, end);
      (req as { fence?: Admitted }).fence = admitted;
      return { end };
    } catch (error) {
      return { refusal: this.#refusalFor(req, error) };
    }
  }

  #stamp(req: Req, res: HttpResponse, end: () => void): void {
    const { clock } = this.#options;
    if (clock === undefined) return;
    try {
      takeNote(clock, req);
    } catch (error) {
      end();
      throw error;
    }
    stampWhenSent(clock, res);
  }

  /** Throws what is none of the fence's errors. */
  #refusalFor(req: Req, error: unknown): Answer {
    if (!(error instanceof FenceError)) throw error;
    const refusal = problemOf(error, req.originalUrl ?? req.url);
    if (refusal.status >= 500) this.#options.onError?.(error);
    return refusal;
  }

  async #run(entry: Open, res: HttpResponse, handler: () => unknown): Promise<unknown> {
    const hasTurn = this.#admission.serializes && entry !== OPEN;
    try {
      const result = handler();
      if (hasTurn && result === undefined && !res.writableEnded) {
        throw invalid("with serialize a handler must return a promise that settles when its work is over");
      }
      return await result;
    } finally {
      entry.end();
    }
  }

  /** Where no framework takes care of errors in the service's own functions. */
  #failed(error: unknown): { readonly refusal: Answer } {
    if (this.#options.onError) this.#options.onError(error);
    else process.emitWarning(error instanceof Error ? error : String(error));
    return { refusal: plainProblem(500, "Internal Server Error") };
  }
}

/** A caller is present until its response is closed. */
class Present implements Presence {
  readonly #res: HttpResponse;

  constructor(res: HttpResponse) {
    this.#res = res;
  }

  get gone(): boolean {
    return this.#res.destroyed;
  }

  onGone(listener: () => void): () => void {
    this.#res.once("close", listener);
    return () => this.#res.off("close", listener);
  }
}

function send(res: HttpResponse, { status, headers, body }: Answer): void {
  if (res.headersSent) return;
  res.statusCode = status;
  for (const [name, value] of Object.entries(headers)) res.setHeader(name, value);
  res.end(body);
}

function answerWith(reply: FastifyReply, { status, headers, body }: Answer): unknown {
  reply.code(status);
  for (const [name, value] of Object.entries(headers)) reply.header(name, value);
  return reply.send(body);
}

/**
 * A fence in front of a service's handlers: refuses requests with stale tokens. Give `authorize` or `validate`, or both.
 * Throws INVALID.
 *
 * It admits; see `serialize` and `admitted.claim` for what keeps a slow handler from writing after a newer one.
 *
 * @example
 * const fence = httpFence({
 *   store: fenceStore(postgresFence(pool)),
 *   resource: (req) => (req.method === "GET" ? null : new URL(req.url, "http://x").pathname.slice(1)),
 *   validate: (name, token) => client.validate(name, token),
 * });
 * createServer(fence.node(handler)).listen(8080);
 */
export function httpFence<Req extends HttpRequest = HttpRequest>(options: HttpFenceOptions<Req>): HttpFence<Req> {
  return new HttpFence(options);
}

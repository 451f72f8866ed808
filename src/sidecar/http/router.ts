/**
 * From a request to an operation and back. A route is a method and a path whose segments are literal or `{parameters}`;
 * a segment is taken as it came and then decoded, so that `%2F` is a part of a name and not a separator.
 */
import type { IncomingMessage, ServerResponse } from "node:http";
import type { z } from "zod";
import { type Answer, badRequest, HttpProblem, problemOf } from "./problem.js";
import { send } from "./send.js";

const BODY_BYTES_MAX = 65_536;

/** One request. */
export interface Call {
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  readonly parameters: Readonly<Record<string, string>>;
  readonly query: Readonly<Record<string, string>>;
  /** Aborted when the connection breaks before the answer has been given. */
  readonly signal: AbortSignal;
}

/** Returns the answer; undefined: it has answered itself. */
export type Operation = (call: Call) => Promise<Answer | undefined> | Answer | undefined;

export interface Route {
  readonly method: "GET" | "POST" | "DELETE";
  readonly path: string;
  readonly operation: Operation;
}

interface Compiled extends Route {
  readonly segments: readonly string[];
}

export interface RouterOptions {
  /** What comes before every operation; throws what is to be answered. */
  readonly check: (request: IncomingMessage) => void;
  readonly onBug: (error: unknown) => void;
  /** Hears of every answer. */
  readonly onAnswer: (route: string, status: number) => void;
}

export class Router {
  readonly #routes: readonly Compiled[];
  readonly #options: RouterOptions;

  constructor(routes: readonly Route[], options: RouterOptions) {
    this.#routes = routes.map((route) => ({ ...route, segments: route.path.split("/") }));
    this.#options = options;
  }

  /** Answers a request. Never rejects. */
  async handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const gone = new AbortController();
    response.once("close", () => {
      if (!response.writableFinished) gone.abort(new Error("the connection is closed"));
    });
    let route = "none";
    try {
      this.#options.check(request);
      const [path = "", search = ""] = split(request.url ?? "");
      const found = this.#find(request.method ?? "", path);
      route = found.route.path;
      const call: Call = {
        request,
        response,
        parameters: found.parameters,
        query: parseQuery(search),
        signal: gone.signal,
      };
      const answer = await found.route.operation(call);
      if (answer === undefined) this.#options.onAnswer(route, response.statusCode);
      else this.#send(request, response, answer, route);
    } catch (error) {
      if (gone.signal.aborted || response.destroyed || request.errored !== null) return; // nobody listens
      this.#send(request, response, problemOf(error, this.#options.onBug), route);
    }
  }

  #find(method: string, path: string): { route: Compiled; parameters: Record<string, string> } {
    const segments = path.split("/");
    const allowed = new Set<string>();
    for (const route of this.#routes) {
      const parameters = match(route.segments, segments);
      if (!parameters) continue;
      if (route.method === method || (method === "HEAD" && route.method === "GET")) return { route, parameters };
      allowed.add(route.method);
    }
    if (allowed.size === 0) {
      const hint = path.startsWith("/v1/lock") ? "; in a name write %2F for /, or give it as ?name= to /v1/lock" : "";
      throw new HttpProblem(404, "NOT_FOUND", `there is no such resource${hint} (see /v1/openapi.json)`);
    }
    const allow = [...allowed].join(", ");
    throw new HttpProblem(405, "INVALID", `only ${allow} is possible here`, { headers: { allow } });
  }

  #send(request: IncomingMessage, response: ServerResponse, answer: Answer, route: string): void {
    this.#options.onAnswer(route, answer.status);
    send(request, response, answer);
  }
}

function split(url: string): [path: string, search: string] {
  if (!url.startsWith("/")) throw badRequest("the request target must be a path");
  const at = url.indexOf("?");
  return at < 0 ? [url, ""] : [url.slice(0, at), url.slice(at + 1)];
}

function match(route: readonly string[], segments: readonly string[]): Record<string, string> | undefined {
  if (route.length !== segments.length) return undefined;
  const parameters: Record<string, string> = {};
  for (const [i, part] of route.entries()) {
    const segment = segments[i] as string;
    if (!part.startsWith("{")) {
      if (part !== segment) return undefined;
    } else {
      if (segment === "") return undefined;
      parameters[part.slice(1, -1)] = decode(segment);
    }
  }
  return parameters;
}

function decode(segment: string): string {
  try {
    return decodeURIComponent(segment);
  } catch {
    throw badRequest("the path is not percent-encoded UTF-8");
  }
}

function parseQuery(search: string): Record<string, string> {
  const query: Record<string, string> = Object.create(null);
  for (const part of search.split("&")) {
    if (part === "") continue;
    const at = part.indexOf("=");
    const [name, value] = at < 0 ? [part, ""] : [part.slice(0, at), part.slice(at + 1)];
    const key = decode(name.replaceAll("+", " "));
    if (key in query) throw badRequest(`${JSON.stringify(key.slice(0, 64))} is given twice`);
    query[key] = decode(value.replaceAll("+", " "));
  }
  return query;
}

/** The body: a JSON object, or nothing. */
export async function readBody({ request }: Call): Promise<Readonly<Record<string, unknown>>> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  // Not destroyed when it is too long: the answer goes over the same socket.
  for await (const chunk of request.iterator({ destroyOnReturn: false }) as AsyncIterable<Buffer>) {
    bytes += chunk.length;
    if (bytes > BODY_BYTES_MAX)
      throw new HttpProblem(413, "INVALID", `the body is longer than ${BODY_BYTES_MAX} bytes`);
    chunks.push(chunk);
  }
  if (bytes === 0) return {};
  let value: unknown;
  try {
    value = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(Buffer.concat(chunks)));
  } catch {
    throw badRequest("the body is not JSON in UTF-8");
  }
  if (typeof value === "object" && value !== null && !Array.isArray(value)) return value as Record<string, unknown>;
  throw badRequest("the body must be a JSON object");
}

const NUMBER = /^\d{1,16}$/;

/** The body together with the query, where numbers are text. Throws INVALID. */
export async function readInput<T>(call: Call, schema: z.ZodType<T>): Promise<T> {
  const body = await readBody(call);
  const entries = Object.entries(body);
  for (const [key, value] of Object.entries(call.query)) {
    if (key === "name" && call.parameters.name === undefined) continue;
    if (Object.hasOwn(body, key))
      throw badRequest(`${JSON.stringify(key.slice(0, 64))} is in the body and in the query`);
    entries.push([key, NUMBER.test(value) ? numeric(schema, key, value) : value]);
  }
  const parsed = schema.safeParse(Object.fromEntries(entries));
  if (parsed.success) return parsed.data;
  const [issue] = parsed.error.issues;
  const where = issue?.path.join(".").slice(0, 64);
  throw badRequest(`${where ? `${where}: ` : ""}${(issue?.message ?? "not valid").slice(0, 500)}`);
}

/** "42" in a query is a number, except where text is wanted. */
function numeric(schema: z.ZodType, key: string, value: string): unknown {
  const shape = (schema as unknown as { shape?: Record<string, z.ZodType> }).shape;
  return shape?.[key]?.safeParse(value).success ? value : Number(value);
}

/** The name of the lock, from the path or from the query. */
export function lockName({ parameters, query }: Call): string {
  const name = parameters.name ?? query.name;
  if (name === undefined) throw badRequest("?name= is missing");
  return name;
}

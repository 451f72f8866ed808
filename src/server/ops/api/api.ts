/**
 * The API of the console, below /api/v1/. First it is seen to that no other site's page asks; then who asks; that is paid
 * for; and each route asks what its caller is permitted.
 */
import type { IncomingMessage, ServerResponse } from "node:http";
import type { Endpoint } from "../../config/endpoint.js";
import { badText, invalid } from "../../rpc/check.js";
import type { WireFailure } from "../../rpc/errors.js";
import { type Access, isIdentity } from "../../security/access.js";
import { type Answer, failed, json, refused } from "../answer.js";
import { peerOf } from "../peer.js";
import { foreignHost, foreignSite } from "../same-site.js";
import type { ApiContext, ApiRoute, ConsoleOptions } from "./context.js";
import { listElections } from "./elections.js";
import { EventStreams, events } from "./events.js";
import { forceRelease } from "./force-release.js";
import { describeLock, listLeases, listLocks, listSessions, status, topLocks } from "./reads.js";
import { timeline } from "./timeline.js";

export const API = "/api/v1/";

/** Questions to the core that wait for their answer. More of them than connections come only from pipelining. */
const OPEN_MAX = 64;

const busy: WireFailure = { reason: "LIMIT", message: `more than ${OPEN_MAX} requests are open`, retryAfterMs: 1_000 };

interface Matched {
  readonly route: ApiRoute;
  readonly method: "GET" | "POST";
  /** Of the lock, as it is in the path; undefined: this route has none. */
  readonly name?: string | undefined;
}

const fixed: ReadonlyMap<string, ApiRoute> = new Map([
  ["status", status],
  ["locks", listLocks],
  ["leases", listLeases],
  ["sessions", listSessions],
  ["elections", listElections],
  ["top", topLocks],
  ["events", events],
]);

export class Api {
  readonly #context: ApiContext;
  readonly #endpoint: Endpoint;
  #open = 0;

  constructor(options: ConsoleOptions, access: Access, endpoint: Endpoint) {
    this.#context = { ...options, access, streams: new EventStreams() };
    this.#endpoint = endpoint;
  }

  /** `path` begins with `API`. Null: the response is taken over. Rejects on a bug. */
  async answer(path: string, query: string, http: IncomingMessage, response: ServerResponse): Promise<Answer | null> {
    if (this.#open >= OPEN_MAX) return failed(busy);
    this.#open++;
    try {
      return await this.#answer(path.slice(API.length), query, http, response);
    } finally {
      this.#open--;
    }
  }

  async #answer(path: string, query: string, http: IncomingMessage, response: ServerResponse) {
    const { access } = this.#context;
    const foreign = foreignSite(http) ?? (access.authentication ? null : foreignHost(http, this.#endpoint));
    if (foreign !== null) return refused(foreign);
    const matched = match(path);
    if (matched === undefined) return json({ error: { reason: "INVALID", message: "there is no such thing" } }, 404);
    if (http.method !== matched.method) return methodNotAllowed(matched.method);
    const peer = peerOf(http);
    const identity = await access.authenticate(peer);
    if (!isIdentity(identity)) return failed(identity);
    const unpaid = identity.charge(1);
    if (unpaid !== null) return failed(unpaid);
    const parameters = new URLSearchParams(query);
    const name = nameOf(matched, parameters);
    if (name === null) return refused(invalid("the name of the lock in the path is not well encoded"));
    const bad = matched.name === undefined ? null : badText("name", name, this.#context.coreLimits.nameBytesMax);
    if (bad !== null) return refused(bad);
    return matched.route(this.#context, { http, response, peer, identity, name, query: parameters });
  }
}

function match(path: string): Matched | undefined {
  const route = fixed.get(path);
  if (route !== undefined) return { route, method: "GET" };
  const [first, name, action, ...rest] = path.split("/");
  if (first !== "locks" || name === undefined || rest.length > 0) return undefined;
  if (action === undefined) return { route: describeLock, method: "GET", name };
  if (action === "timeline") return { route: timeline, method: "GET", name };
  return action === "force-release" ? { route: forceRelease, method: "POST", name } : undefined;
}

/** In place of a name in the path, which cannot be "." or "..", it may be the parameter `name`. Null: it is neither. */
function nameOf({ name }: Matched, query: URLSearchParams): string | null {
  if (name === undefined) return "";
  if (name === "") return query.get("name") ?? "";
  if (query.has("name")) return null;
  try {
    return decodeURIComponent(name);
  } catch {
    return null;
  }
}

const methodNotAllowed = (allow: string): Answer => ({
  ...json({ error: { reason: "INVALID", message: `${allow} only` } }, 405),
  headers: { allow },
});

/**
 * The sidecar: beside an application of any language it keeps the session with the server and the renewals of leases, and
 * offers locks over plain HTTP on this machine.
 *
 * When the application dies, its connections break, and what was tied to them is released at once. When the sidecar dies,
 * nobody renews: the leases lapse by their TTL, and nothing is orphaned. When both are stopped, the fencing token is what
 * keeps a write from coming too late.
 */
import type { IncomingMessage, ServerResponse } from "node:http";
import type { LeaseholdError } from "@leasehold/client";
import type { Endpoint } from "../server/config/endpoint.js";
import type { Logger } from "../server/log.js";
import { Attempts } from "./api/attempts.js";
import { catalog, type OperationId } from "./api/catalog.js";
import { openapi } from "./api/openapi.js";
import { operations } from "./api/operations.js";
import { Taking } from "./api/taking.js";
import { Holds } from "./holds.js";
import { type Listener, listen, refusePages } from "./http/listener.js";
import { HttpProblem, problemOf } from "./http/problem.js";
import { type Operation, Router } from "./http/router.js";
import { send } from "./http/send.js";
import { type Connect, Link } from "./link.js";
import { SidecarMetrics } from "./metrics.js";
import { FencingProxy, type ProxySettings } from "./proxy/proxy.js";
import { Election, type Hooks } from "./term/election.js";
import { Keeper } from "./term/keeper.js";

export interface SidecarOptions {
  /** How to reach a server. Rejects when none answers. */
  readonly connect: Connect;
  readonly listen: Endpoint;
  /** For the file of a unix socket. */
  readonly socketMode: number;
  /** Where probes and metrics are answered as well; null: nowhere else. */
  readonly opsListen: Endpoint | null;
  /** Of the lease that locks share. */
  readonly ttlMs: number;
  /** Locks that are held and awaited at the same time. */
  readonly holdsMax: number;
  /** For an orderly end of what is held when the sidecar stops. */
  readonly stopMsMax: number;
  readonly elect: { readonly name: string; readonly value: string | undefined; readonly hooks: Hooks } | null;
  readonly proxy: (ProxySettings & { readonly lock: string; readonly listen: Endpoint }) | null;
  readonly readyWhen: "connected" | "leader";
  readonly version: string;
  readonly log: Logger;
}

export interface RunningSidecar {
  readonly address: string;
  readonly opsAddress: string | null;
  readonly proxyAddress: string | null;
  /** Resolves with what no waiting mends. */
  readonly failed: Promise<LeaseholdError>;
  /** Gives everything back, within `stopMsMax` and some seconds. Never rejects. */
  stop(): Promise<void>;
}

/** Requests besides the holds and waits, each of which may have a connection. */
const SPARE_CONNECTIONS = 256;
const PROXY_CONNECTIONS_MAX = 2_048;
const REQUEST_MS_MAX = 10_000;
/** For taking leave of a server that may be gone. */
const CLOSE_MS = 2_000;
const OPS: ReadonlySet<OperationId> = new Set(["health", "ready", "metrics"]);

/** Listens, and connects in the background. Rejects when an address cannot be had. */
export async function startSidecar(options: SidecarOptions): Promise<RunningSidecar> {
  const sidecar = new Sidecar(options);
  await sidecar.listen();
  return sidecar;
}

class Sidecar implements RunningSidecar {
  readonly #options: SidecarOptions;
  readonly #log: Logger;
  readonly #link: Link;
  readonly #holds: Holds;
  readonly #metrics: SidecarMetrics;
  readonly #keepers: readonly Keeper[];
  readonly #election: Election | null;
  readonly #proxy: FencingProxy | null;
  readonly #startedMs = performance.now();
  readonly failed: Promise<LeaseholdError>;
  #draining = false;
  #main: Listener | null = null;
  #ops: Listener | null = null;
  #proxied: Listener | null = null;
  #stopped: Promise<void> | null = null;

  constructor(options: SidecarOptions) {
    const { connect, log, elect, proxy } = options;
    this.#options = options;
    this.#log = log;
    let fail: (error: LeaseholdError) => void = () => {};
    this.failed = new Promise((resolve) => {
      fail = resolve;
    });
    this.#link = new Link(connect, log, fail);
    this.#holds = new Holds(options.holdsMax, (reason) => this.#metrics.lost(reason));
    const keeper = (name: string, value?: string) => new Keeper({ name, value, link: this.#link, log });
    const elected = elect && keeper(elect.name, elect.value);
    const guarding = proxy && (elected?.name === proxy.lock ? elected : keeper(proxy.lock));
    this.#keepers = [...new Set([elected, guarding])].filter((one) => one !== null);
    this.#election = elected && elect && new Election(elected, this.#link, log, elect.hooks);
    const client = () => this.#link.client;
    this.#proxy =
      proxy &&
      guarding &&
      new FencingProxy({ ...proxy, keeper: guarding, client, onOutcome: (outcome) => this.#metrics.proxied(outcome) });
    this.#metrics = new SidecarMetrics({
      holds: () => this.#holds.size,
      waits: () => this.#holds.waits,
      connected: () => this.#link.state === "connected",
      leads: () => this.#election?.leads ?? null,
      proxyHeld: () => this.#proxy?.held ?? null,
      proxyInFlight: () => this.#proxy?.inFlight ?? 0,
    });
  }

  get address(): string {
    return this.#main?.address ?? "";
  }

  get opsAddress(): string | null {
    return this.#ops?.address ?? null;
  }

  get proxyAddress(): string | null {
    return this.#proxied?.address ?? null;
  }

  async listen(): Promise<void> {
    const { listen: endpoint, opsListen, proxy, socketMode, holdsMax } = this.#options;
    const bounds = { socketMode, connectionsMax: holdsMax + SPARE_CONNECTIONS, requestMsMax: REQUEST_MS_MAX };
    try {
      const main = this.#router(endpoint.kind === "tcp", () => true);
      this.#main = await listen({ endpoint, ...bounds }, (request, response) => void main.handle(request, response));
      if (opsListen) {
        const ops = this.#router(null, (id) => OPS.has(id));
        const settings = { endpoint: opsListen, ...bounds, connectionsMax: SPARE_CONNECTIONS };
        this.#ops = await listen(settings, (request, response) => void ops.handle(request, response));
      }
      if (proxy) {
        const settings = { endpoint: proxy.listen, socketMode, connectionsMax: PROXY_CONNECTIONS_MAX, requestMsMax: 0 };
        const overTcp = proxy.listen.kind === "tcp";
        this.#proxied = await listen(settings, (request, response) => this.#forward(request, response, overTcp));
      }
    } catch (error) {
      await this.stop();
      throw error;
    }
    for (const keeper of this.#keepers) keeper.start();
  }

  /** `overTcp`: null where everybody may ask. */
  #router(overTcp: boolean | null, serves: (id: OperationId) => boolean): Router {
    const handlers = this.#handlers();
    const routes = catalog
      .filter(({ id }) => serves(id))
      .map(({ method, path, id }) => ({ method, path, operation: handlers[id] }));
    return new Router(routes, {
      check: (request) => (overTcp === null ? undefined : refusePages(request, overTcp)),
      onBug: (error) => this.#log.error({ err: error }, "a bug"),
      onAnswer: (route, status) => this.#metrics.answered(route, status),
    });
  }

  #handlers(): Readonly<Record<OperationId, Operation>> {
    const { holdsMax, ttlMs, version } = this.#options;
    const draining = () => this.#draining;
    const parts = { link: this.#link, holds: this.#holds, draining };
    const description = openapi(version);
    const text = { "content-type": "text/plain; charset=utf-8" };
    return {
      ...operations({
        ...parts,
        taking: new Taking({ ...parts, ttlMs }),
        attempts: new Attempts(holdsMax),
        version,
        startedMs: this.#startedMs,
      }),
      leader: () => {
        if (this.#election) return { status: 200, body: this.#election.view() };
        throw new HttpProblem(404, "NOT_FOUND", "this sidecar stands in no election (--elect)");
      },
      openapi: () => ({ status: 200, body: description }),
      health: () => ({ status: 200, body: "ok\n", headers: text }),
      ready: async () => {
        const why = await this.#unready();
        return {
          status: why === null ? 200 : 503,
          body: why === null ? "ready\n" : `not ready: ${why}\n`,
          headers: text,
        };
      },
      metrics: async () => {
        const headers = { "content-type": this.#metrics.contentType };
        return { status: 200, body: await this.#metrics.render(), headers };
      },
    };
  }

  async #unready(): Promise<string | null> {
    if (this.#draining) return "stopping";
    if (this.#options.readyWhen === "leader" && !this.#election?.leads) return "another one leads";
    return this.#link.unready();
  }

  #forward(request: IncomingMessage, response: ServerResponse, overTcp: boolean): void {
    try {
      refusePages(request, overTcp);
      this.#proxy?.handle(request, response);
    } catch (error) {
      send(
        request,
        response,
        problemOf(error, () => this.#log.error({ err: error }, "a bug")),
      );
    }
  }

  stop(): Promise<void> {
    this.#stopped ??= this.#stop();
    return this.#stopped;
  }

  async #stop(): Promise<void> {
    const { stopMsMax } = this.#options;
    this.#draining = true;
    for (const hold of this.#holds.all()) hold.closing();
    await Promise.all([this.#holds.drained(stopMsMax), this.#proxy?.drain(stopMsMax)]);
    this.#proxy?.close();
    this.#election?.stop();
    await Promise.all([this.#holds.releaseAll(), ...this.#keepers.map((keeper) => keeper.stop())]);
    await this.#link.close(CLOSE_MS);
    const listeners = [this.#main, this.#ops, this.#proxied].filter((listener) => listener !== null);
    const closed = Promise.all(listeners.map((listener) => listener.close()));
    const late = setTimeout(() => {
      for (const listener of listeners) listener.destroy();
    }, CLOSE_MS);
    await closed;
    clearTimeout(late);
  }
}

/** A service with registers behind a fence, over real sockets: with node:http, express and fastify. */
import { once } from "node:events";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { text } from "node:stream/consumers";
import { fileURLToPath } from "node:url";
import { type Fenced, holdOf } from "@leasehold/fence";
import {
  fencedFetch,
  type HttpFence,
  type HttpFenceOptions,
  type HttpRequest,
  httpFence,
  httpFenceClient,
} from "@leasehold/fence/http";
import express, { type NextFunction, type Request, type Response } from "express";
import Fastify, { type FastifyReply, type FastifyRequest } from "fastify";
import type { Subject } from "./conformance.js";
import { startHolder } from "./holder.js";

const holders = fileURLToPath(new URL("./holders/http.mjs", import.meta.url));
const SECRET = "Bearer of the tests";
export const ENDPOINT = "/.well-known/leasehold-fence";
export const credentials = { authorization: SECRET };

export type Framework = "node" | "express" | "express middleware" | "fastify" | "fastify hook";
export const FRAMEWORKS: readonly Framework[] = ["node", "express", "express middleware", "fastify", "fastify hook"];

/** What the service does with an admitted request, behind each framework. Resolves with what to answer. */
export type Work = (resource: string, value: string, req: HttpRequest) => Promise<string>;

interface Running {
  readonly server: Server;
  close(): Promise<void>;
}

/** `/registers/<name>?slot=3`: the service derives what is fenced from what is written. */
function guardedBy(url: string): { name: string; slot?: number } {
  const { pathname, searchParams } = new URL(url, "http://service");
  const name = decodeURIComponent(pathname.split("/")[2] ?? "");
  const slot = searchParams.get("slot");
  return slot === null ? { name } : { name, slot: Number(slot) };
}

function resourceOf(url: string): string {
  const { name, slot } = guardedBy(url);
  return slot === undefined ? name : `${name}#${slot}`;
}

export function registerPath(by: Fenced): string {
  const { name, resource } = holdOf(by);
  const slot = resource === name ? "" : `?slot=${resource.slice(name.length + 1)}`;
  return `/registers/${encodeURIComponent(name)}${slot}`;
}

const urlOf = (req: HttpRequest) => req.originalUrl ?? req.url ?? "/";

function runNode(fence: HttpFence, work: Work): Running {
  const endpoint = fence.endpoint();
  const guarded = fence.node(async (req: IncomingMessage, res: ServerResponse) => {
    res.end(await work(resourceOf(urlOf(req)), await text(req), req));
  });
  const server = createServer((req, res) => (req.url?.startsWith(ENDPOINT) ? endpoint(req, res) : guarded(req, res)));
  return { server: server.listen(0, "127.0.0.1"), close: async () => void server.close() };
}

function runExpress(fence: HttpFence, work: Work, middleware: boolean): Running {
  const app = express();
  app.use(ENDPOINT, fence.endpoint());
  app.use(express.text({ type: () => true }));
  const handler = async (req: Request, res: Response) => {
    res.send(await work(resourceOf(req.originalUrl), typeof req.body === "string" ? req.body : "", req));
  };
  if (middleware) app.all("/registers/*name", fence.express(), handler);
  else app.all("/registers/*name", fence.express(handler));
  app.use((error: Error, _req: Request, res: Response, _next: NextFunction) => {
    res.status(500).send(`express: ${error.message}`);
  });
  const server = app.listen(0, "127.0.0.1");
  return { server, close: async () => void server.close() };
}

async function runFastify(fence: HttpFence, work: Work, hook: boolean): Promise<Running> {
  const app = Fastify();
  app.removeAllContentTypeParsers();
  app.addContentTypeParser("*", { parseAs: "string" }, (_req, body, done) => done(null, body));
  const endpoint = fence.endpoint();
  app.all(ENDPOINT, (request, reply) => {
    reply.hijack();
    return endpoint(request, reply.raw);
  });
  const handler = async (request: FastifyRequest) =>
    work(resourceOf(request.url), typeof request.body === "string" ? request.body : "", request);
  if (hook) app.all("/registers/*", { preHandler: fence.fastify<FastifyRequest, FastifyReply>() }, handler);
  else app.all("/registers/*", fence.fastify<FastifyRequest, FastifyReply>(handler));
  await app.listen({ port: 0, host: "127.0.0.1" });
  return { server: app.server, close: () => app.close() };
}

/** A fence for the registers; a test says what is different. */
export type Settings = Partial<HttpFenceOptions> & Pick<HttpFenceOptions, "store">;

function fenceOf({ store, ...others }: Settings): HttpFence {
  const authorized = (req: HttpRequest) => req.headers.authorization === SECRET;
  return httpFence({
    store,
    resource: (req) => (req.method === "GET" ? null : guardedBy(urlOf(req))),
    admin: authorized,
    ...(others.validate ? {} : { authorize: authorized }),
    ...others,
  });
}

/** A running service. */
export class Service {
  readonly registers = new Map<string, string>();
  requests = 0;
  readonly fence: HttpFence;
  #running: Running | undefined;

  constructor(fence: HttpFence) {
    this.fence = fence;
  }

  /** `work`: what to do instead of writing the register, or before. */
  static async start(framework: Framework, settings: Settings, before?: Work): Promise<Service> {
    const service = new Service(fenceOf(settings));
    const work: Work = async (resource, value, req) => {
      const said = await before?.(resource, value, req);
      if (said !== undefined && said !== "") return said;
      if (req.method === "GET") return service.registers.get(resource) ?? "";
      service.registers.set(resource, value);
      return "written";
    };
    service.#running = await run(framework, service.fence, work);
    const { server } = service.#running;
    if (!server.listening) await once(server, "listening");
    server.on("request", () => service.requests++);
    return service;
  }

  get url(): string {
    return `http://127.0.0.1:${(this.server.address() as AddressInfo).port}`;
  }

  get server(): Server {
    return this.#running?.server as Server;
  }

  async close(): Promise<void> {
    this.server.closeAllConnections();
    await this.#running?.close();
  }
}

function run(framework: Framework, fence: HttpFence, work: Work): Running | Promise<Running> {
  if (framework === "node") return runNode(fence, work);
  if (framework.startsWith("express")) return runExpress(fence, work, framework === "express middleware");
  return runFastify(fence, work, framework === "fastify hook");
}

/** Makes the conformance suite's subject of a service. */
export async function httpSubject(framework: Framework, settings: Settings, close?: () => unknown): Promise<Subject> {
  const service = await Service.start(framework, { serialize: true, ...settings });
  const url = service.url;
  const fence = httpFenceClient(url + ENDPOINT, { headers: credentials });
  return {
    fence,
    async write(by, value) {
      const send = fencedFetch(by);
      const response = await send(url + registerPath(by), { method: "PUT", headers: credentials, body: value });
      if (response.status !== 200) throw new Error(`${response.status} ${await response.text()}`);
      await response.text();
    },
    async read(resource) {
      await new Promise(setImmediate); // let others have a turn
      return service.registers.get(resource);
    },
    async recreate(by) {
      service.registers.delete(holdOf(by).resource);
    },
    sent: () => service.requests,
    holder(name, token, remainingMs, value) {
      return startHolder(holders, { url, headers: credentials }, name, token, remainingMs, value);
    },
    async close() {
      await service.close();
      await close?.();
    },
  };
}

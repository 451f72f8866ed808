/** A whole server with its console, clients of it, and an access control that knows a few people. */
import { request as httpRequest } from "node:http";
import { type Client, connect } from "@leasehold/client";
import { onTestFinished } from "vitest";
import { defaultConfig } from "../../src/server/config/schema.js";
import { anybody, type Refusal } from "../../src/server/core/types.js";
import { type Access, type Demand, everybody, type Identity } from "../../src/server/security/access.js";
import { type RunningServer, startServer } from "../../src/server/server.js";

export interface Console {
  readonly server: RunningServer;
  /** "http://127.0.0.1:1234" */
  readonly url: string;
  client(owner: string): Promise<Client>;
}

/** Without `access` it is open to everybody. */
export async function startConsole(access?: Access, set: Readonly<Record<string, unknown>> = {}): Promise<Console> {
  const config = defaultConfig({
    listen: "127.0.0.1:0",
    opsListen: "127.0.0.1:0",
    store: "memory",
    auditLog: "none",
    ...set,
  });
  const server = await startServer(config, access === undefined ? {} : { access });
  onTestFinished(() => server.stop());
  return {
    server,
    url: `http://${server.opsAddress}`,
    client: async (owner) => {
      const client = await connect(server.address, { owner, token: "admin" });
      onTestFinished(() => client.close());
      return client;
    },
  };
}

export interface TestAccess extends Access {
  /** What was asked for, whatever the answer. */
  readonly demands: Demand[];
  /** Tokens whose owners have sent too many requests. */
  readonly exhausted: Set<string>;
  /** Ends whatever is open by this token. */
  withdraw(token: string): void;
}

const people: Readonly<Record<string, (demand: Demand) => boolean>> = {
  admin: () => true,
  viewer: ({ verb }) => verb === "observe",
  ci: ({ verb, name }) => verb !== "admin" && name.startsWith("ci/"),
};

/** Knows the bearer tokens "admin", "viewer" (observes everything) and "ci" (below ci/). */
export function testAccess(): TestAccess {
  const demands: Demand[] = [];
  const exhausted = new Set<string>();
  const open = new Map<string, Set<() => void>>();
  const identity = (token: string, may: (demand: Demand) => boolean): Identity => ({
    ...everybody,
    principal: { name: `token/${token}`, quota: anybody.quota },
    permits: (demand) => {
      demands.push(demand);
      const denied: Refusal = { kind: "refused", reason: "DENIED", message: `${token} may not ${demand.verb}` };
      return may(demand) ? null : denied;
    },
    charge: () => (exhausted.has(token) ? { reason: "LIMIT", message: "too many requests", retryAfterMs: 7 } : null),
    onWithdrawn: (listener) => {
      const end = () => listener({ reason: "UNAUTHENTICATED", message: "withdrawn", retryAfterMs: 0 });
      const all = open.get(token) ?? new Set();
      open.set(token, all.add(end));
      return () => all.delete(end);
    },
  });
  return {
    authentication: true,
    demands,
    exhausted,
    withdraw: (token) => {
      for (const end of open.get(token) ?? []) end();
    },
    // Later, as where keys have to be looked at.
    authenticate: async ({ authorization }) => {
      const token = authorization?.replace(/^Bearer /, "") ?? "";
      const may = Object.hasOwn(people, token) ? people[token] : undefined;
      if (may === undefined) return { reason: "UNAUTHENTICATED", message: "who are you?", retryAfterMs: 0 };
      return identity(token, may);
    },
  };
}

export interface Answered {
  readonly status: number;
  readonly headers: Record<string, unknown>;
  readonly text: string;
  // biome-ignore lint/suspicious/noExplicitAny: JSON, whose fields the tests compare
  readonly json: any;
}

export interface Asking {
  readonly method?: string;
  readonly headers?: Record<string, string>;
  readonly body?: string;
}

/** Node's fetch sets headers such as Host by itself; this one sends what it is told. */
export function ask(url: string, path: string, { method = "GET", headers = {}, body }: Asking = {}): Promise<Answered> {
  const { hostname, port } = new URL(url);
  return new Promise((resolve, reject) => {
    const sent = httpRequest({ host: hostname, port, path, method, headers }, (response) => {
      let text = "";
      response.setEncoding("utf8").on("data", (chunk) => {
        text += chunk;
      });
      response.on("end", () => {
        const isJson = String(response.headers["content-type"]).startsWith("application/json");
        resolve({
          status: response.statusCode ?? 0,
          headers: response.headers,
          text,
          json: isJson && text !== "" ? JSON.parse(text) : null,
        });
      });
      response.on("error", reject);
    });
    sent.on("error", reject);
    sent.end(body);
  });
}

export const as = (token: string): Record<string, string> => ({ authorization: `Bearer ${token}` });

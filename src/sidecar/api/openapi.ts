/** The description of the API for programs (OpenAPI 3.1), made of the catalog and its schemas. */
import { z } from "zod";
import { catalog, type Resource } from "./catalog.js";
import * as schemas from "./schemas.js";

type Json = Record<string, unknown>;

const NAMED: readonly (readonly [string, z.ZodType])[] = [
  ["AcquireRequest", schemas.acquireRequest],
  ["HoldRequest", schemas.holdRequest],
  ["ReleaseRequest", schemas.releaseRequest],
  ["TickRequest", schemas.tickRequest],
  ["ObserveRequest", schemas.observeRequest],
  ["Hold", schemas.hold],
  ["HoldEvent", schemas.streamEvent],
  ["HoldList", schemas.holdList],
  ["Released", schemas.released],
  ["Lock", schemas.lock],
  ["Range", schemas.range],
  ["Timestamp", schemas.timestamp],
  ["Status", schemas.status],
  ["Leader", schemas.leader],
  ["Problem", schemas.problem],
];

const REFUSAL: Readonly<Record<number, string>> = {
  400: "The request is not valid",
  403: "Not permitted, or sent by a web page",
  404: "There is no such thing",
  409: "A deadlock, a token that does not hold the lock, or a timestamp too far ahead",
  410: "The hold is lost or was released",
  423: "Somebody else holds the lock, and the wait is over",
  429: "A bound of the sidecar or of the server is reached",
  500: "A bug",
  503: "No server can be reached, or the sidecar is stopping or not ready",
};

/** The document. */
export function openapi(version: string): Json {
  const paths: Record<string, Json> = {};
  for (const resource of catalog) {
    paths[resource.path] = { ...paths[resource.path], [resource.method.toLowerCase()]: operation(resource) };
  }
  return {
    openapi: "3.1.0",
    info: {
      title: "Leasehold sidecar",
      version,
      description: "Locks for applications of any language, from a process beside them. No authentication: local only.",
      license: { name: "Apache-2.0", identifier: "Apache-2.0" },
    },
    servers: [{ url: "http://127.0.0.1:7422" }],
    paths,
    components: { schemas: Object.fromEntries(NAMED.map(([name, schema]) => [name, jsonSchema(schema)])) },
  };
}

function jsonSchema(schema: z.ZodType): Json {
  const { $schema: _, ...rest } = z.toJSONSchema(schema, { io: "input" }) as Json;
  return rest;
}

function reference(schema: z.ZodType): Json {
  const [name] = NAMED.find(([, known]) => known === schema) ?? [];
  if (name === undefined) throw new Error("a schema of the catalog has no name");
  return { $ref: `#/components/schemas/${name}` };
}

function operation(resource: Resource): Json {
  const { id, path, summary, input, refusals } = resource;
  const inQuery = path.startsWith("/v1/lock/") || path === "/v1/lock";
  const parameters = [
    ...[...path.matchAll(/\{(\w+)\}/g)].map(([, name]) => parameter(name as string, "path")),
    ...(inQuery ? [parameter("name", "query")] : []),
    ...(input ? queryParameters(input) : []),
  ];
  return {
    operationId: inQuery ? `${id}ByQuery` : id,
    summary,
    ...(parameters.length > 0 ? { parameters } : {}),
    ...(input ? { requestBody: { content: { "application/json": { schema: reference(input) } } } } : {}),
    responses: {
      200: { description: "Done", content: success(resource) },
      ...Object.fromEntries(
        [400, ...refusals, 500].map((status) => [status, refusal(resource, status, REFUSAL[status] as string)]),
      ),
    },
  };
}

/** What may stand in the body may stand in the query as well, except lists. */
function queryParameters(input: z.ZodType): Json[] {
  const { properties = {} } = jsonSchema(input) as { properties?: Record<string, Json> };
  return Object.entries(properties)
    .filter(([, schema]) => schema.type !== "array")
    .map(([name, schema]) => ({ name, in: "query", required: false, schema }));
}

const parameter = (name: string, where: "path" | "query"): Json => ({
  name,
  in: where,
  required: true,
  schema: { type: "string", minLength: 1 },
});

function success({ output, stream }: Resource): Json {
  if (output === "text") return { "text/plain": { schema: { type: "string" } } };
  if (output === "object") return { "application/json": { schema: { type: "object" } } };
  return { [stream ? "application/x-ndjson" : "application/json"]: { schema: reference(output) } };
}

function refusal({ output }: Resource, status: number, description: string): Json {
  const text = output === "text" && status === 503;
  const content = text
    ? { "text/plain": { schema: { type: "string" } } }
    : { "application/problem+json": { schema: reference(schemas.problem) } };
  return { description, content };
}

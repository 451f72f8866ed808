/**
 * A lock is taken away by the console. Only an administrator may, so somebody must be known to be one: without
 * authentication any web page could let a browser do it, and it is refused.
 */
import type { IncomingMessage } from "node:http";
import { z } from "zod";
import type { ForceRelease, Refusal } from "../../core/types.js";
import { badOptionalText, invalid } from "../../rpc/check.js";
import { type Answer, failed, json, refused } from "../answer.js";
import { type Asked, ask } from "./ask.js";
import type { ApiContext, ApiRequest, ApiRoute } from "./context.js";
import { badParameters } from "./query.js";

const BODY_BYTES_MAX = 4_096;

const bodySchema = z.strictObject({
  /** 0: all holders. */
  token: z.int().min(0).default(0),
  reason: z.string().default(""),
  now: z.boolean().default(false),
});

const unprotected: Refusal = {
  kind: "refused",
  reason: "DENIED",
  message:
    "the console takes no lock away while authentication is off, since any web page could ask for it; " +
    "set authTokens (see leasehold token) or tlsClientAuth, and permit admin in the policy. " +
    "On this machine `leasehold release --force NAME` works",
};

export const forceRelease: ApiRoute = async (context, request) => {
  const { http, name, query } = request;
  const bad = badParameters(query, ["name"]);
  if (bad !== null) return refused(bad);
  if (!context.access.authentication) return refused(unprotected);
  if (!/^application\/json\s*(;|$)/i.test(http.headers["content-type"] ?? "")) {
    return refused(invalid("the content type must be application/json"), 415);
  }
  const text = await readBody(http);
  if (text === null) return refused(invalid(`the body has more than ${BODY_BYTES_MAX} bytes`), 413);
  const body = readForced(text, context.coreLimits.forceMessageBytesMax);
  if ("kind" in body) return refused(body);
  const { token, reason: message, now } = body;
  const command: ForceRelease = { kind: "forceRelease", name, token, message, now };
  const asked = await ask(context.sink, request.identity, command);
  return answer(context, request, command, asked);
};

function readForced(text: string, messageBytesMax: number): z.output<typeof bodySchema> | Refusal {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return invalid("the body is not JSON");
  }
  const { success, data, error } = bodySchema.safeParse(value);
  if (!success) return invalid(z.prettifyError(error).slice(0, 500));
  return badOptionalText("reason", data.reason, messageBytesMax) ?? data;
}

function answer(context: ApiContext, request: ApiRequest, command: ForceRelease, asked: Asked): Answer {
  const { identity, peer } = request;
  const { name, token, message: reason, now } = command;
  const forced = "outcome" in asked && asked.outcome.kind === "forced" ? asked.outcome : null;
  const tokens = forced === null ? [] : [...forced.ended, ...forced.revoking];
  context.audit?.({
    principal: identity.principal.name,
    address: peer.address,
    requestId: peer.requestId,
    name,
    token,
    reason,
    now,
    result: "failure" in asked ? asked.failure.reason : "OK",
    tokens,
  });
  if ("failure" in asked) return failed(asked.failure);
  if (forced === null) throw new Error(`forceRelease was answered with ${asked.outcome.kind}`);
  const { ended, revoking, withinMs } = forced;
  return json({ ended, revoking, withinMs });
}

/** Null: it is too long. What takes too long to arrive ends with the connection. */
async function readBody(http: IncomingMessage): Promise<string | null> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of http as AsyncIterable<Buffer>) {
    bytes += chunk.length;
    if (bytes > BODY_BYTES_MAX) return null;
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString("utf8");
}

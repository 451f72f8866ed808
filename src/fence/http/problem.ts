/**
 * Refusals over HTTP: `application/problem+json` (RFC 9457), with the extension members `code` and, where they are known,
 * `resource`, `token` and `floor`. Causes stay inside: what a driver says about a broken store is nobody else's business.
 */
import { FenceError, type FenceErrorCode, invalid, stale } from "../errors.js";
import { readToken } from "../token.js";

const PROBLEM_TYPE = "application/problem+json";
/** Refusals are short; whoever sends more is no fence. */
const PROBLEM_BYTES_MAX = 16_384;
const INSTANCE_CHARS_MAX = 2_000;
const RETRY_AFTER_S = 1;

/** A response, for any framework. */
export interface Answer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string;
}

interface Kind {
  readonly status: number;
  readonly name: string;
  readonly title: string;
  readonly retryAfterS?: number;
}

const INVALID: Kind = { status: 400, name: "invalid", title: "Not a valid fenced request" };
const REQUIRED: Kind = { status: 428, name: "token-required", title: "A fencing token is required" };
const UNREACHABLE: Kind = {
  status: 503,
  name: "unreachable",
  title: "Whether the token is current cannot be found out now",
  retryAfterS: RETRY_AFTER_S,
};
const KINDS: Readonly<Partial<Record<FenceErrorCode, Kind>>> = {
  STALE_TOKEN: { status: 409, name: "stale-token", title: "The fencing token is stale" },
  LOST: { status: 409, name: "lost", title: "The lock is not held with this token" },
  INVALID,
  DENIED: { status: 403, name: "denied", title: "Not permitted" },
  LIMIT: { status: 503, name: "limit", title: "A bound of the service is reached", retryAfterS: RETRY_AFTER_S },
  UNREACHABLE,
};

/** A request without a token, to something that is fenced. */
export class TokenRequired extends FenceError {
  constructor() {
    super("INVALID", "the header fencing-token is missing");
  }
}

/** `url`: what was asked for; its path becomes the `instance`. */
export function problemOf(error: FenceError, url: string | undefined): Answer {
  const { status, name, title, retryAfterS } =
    error instanceof TokenRequired ? REQUIRED : (KINDS[error.code] ?? UNREACHABLE);
  const instance = url?.split(/[?#]/, 1)[0];
  const said = status === 409; // who may not write there hears nothing of what is there
  const problem = {
    type: `urn:problem-type:leasehold:${name}`,
    title,
    status,
    ...(status === 409 || status === 400 ? { detail: error.message } : {}),
    ...(instance && instance.length <= INSTANCE_CHARS_MAX ? { instance } : {}),
    code: error.code,
    ...(said && error.resource !== undefined ? { resource: error.resource } : {}),
    ...(said && error.token !== undefined ? { token: error.token } : {}),
    ...(said && error.floor !== undefined ? { floor: error.floor } : {}),
  };
  return json(status, problem, PROBLEM_TYPE, retryAfterS === undefined ? {} : { "retry-after": String(retryAfterS) });
}

export function json(status: number, body: unknown, type: string, more: Readonly<Record<string, string>> = {}): Answer {
  const headers = { "content-type": type, "cache-control": "no-store", "x-content-type-options": "nosniff", ...more };
  return { status, headers, body: body === undefined ? "" : JSON.stringify(body) };
}

/** An answer of which the status says everything. */
export function plainProblem(status: number, title: string, more: Readonly<Record<string, string>> = {}): Answer {
  return json(status, { type: "about:blank", title, status }, PROBLEM_TYPE, more);
}

export const isProblem = (response: Response): boolean =>
  response.headers.get("content-type")?.split(";")[0]?.trim().toLowerCase() === PROBLEM_TYPE;

/** The refusal of a fence that this problem is; undefined if it is somebody else's. Reads the body. */
export async function refusalIn(response: Response): Promise<FenceError | undefined> {
  try {
    return refusalOf(JSON.parse(await readText(response, PROBLEM_BYTES_MAX)) as Readonly<Record<string, unknown>>);
  } catch {
    return undefined; // cut off, too long, no JSON, or numbers that are no tokens
  }
}

function refusalOf(problem: Readonly<Record<string, unknown>>): FenceError | undefined {
  const { type, title, detail, code, resource } = problem;
  if (typeof type !== "string" || !type.startsWith("urn:problem-type:leasehold:")) return undefined;
  const token = problem.token === undefined ? undefined : readToken(problem.token);
  const floor = problem.floor === undefined ? undefined : readToken(problem.floor);
  const where = typeof resource === "string" ? { resource } : {};
  if (code === "STALE_TOKEN" && typeof resource === "string" && token !== undefined)
    return stale(resource, token, floor);
  const message = `the service refused: ${String(detail ?? title ?? code)}`;
  const known = Object.keys(KINDS).find((one) => one === code) as FenceErrorCode | undefined;
  return known && new FenceError(known, message, { ...where, ...(token === undefined ? {} : { token }) });
}

/** The body as text, of at most so many bytes. Throws INVALID beyond, and lets go of the rest. */
export async function readText(response: Response, bytesMax: number): Promise<string> {
  if (response.body === null) return "";
  const reader = response.body.getReader();
  const decoder = new TextDecoder();
  let text = "";
  for (let bytes = 0; ; ) {
    const { done, value } = await reader.read();
    if (done) return text + decoder.decode();
    bytes += value.byteLength;
    if (bytes > bytesMax) {
      // Not awaited: of a response that was cloned, it waits until the other half has been read.
      reader.cancel().catch(() => {});
      throw invalid(`the answer is longer than ${bytesMax} bytes`);
    }
    text += decoder.decode(value, { stream: true });
  }
}

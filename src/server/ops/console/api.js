// Questions to the server. The token is kept for this tab only, and sent as a header: nothing sends it by itself.

const KEY = "leasehold.token";
const TIMEOUT_MS = 10_000;

export class ApiError extends Error {
  constructor(status, { reason = "UNREACHABLE", message = "the server cannot be reached", retryAfterMs = 0 } = {}) {
    super(message);
    this.status = status;
    this.reason = reason;
    this.retryAfterMs = retryAfterMs;
  }
}

export const token = {
  get: () => sessionStorage.getItem(KEY) ?? "",
  set: (value) => (value === "" ? sessionStorage.removeItem(KEY) : sessionStorage.setItem(KEY, value)),
};

export function headers(more = {}) {
  const value = token.get();
  return value === "" ? more : { ...more, authorization: `Bearer ${value}` };
}

/** Rejects with an ApiError. */
export const get = (path, parameters = {}, signal = undefined) => call(url(path, parameters), {}, signal);

export function post(path, body) {
  const options = { method: "POST", body: JSON.stringify(body), headers: { "content-type": "application/json" } };
  return call(url(path, {}), options, undefined);
}

async function call(where, options, signal) {
  const limit = AbortSignal.timeout(TIMEOUT_MS);
  let response;
  let body;
  try {
    response = await fetch(where, {
      ...options,
      headers: headers(options.headers),
      signal: signal ? AbortSignal.any([signal, limit]) : limit,
    });
    body = await response.json();
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new ApiError(response?.status ?? 0);
  }
  if (!response.ok) throw new ApiError(response.status, body.error);
  return body;
}

export function url(path, parameters) {
  const query = new URLSearchParams(Object.entries(parameters).filter(([, value]) => value !== ""));
  return `/api/v1/${path}${query.size > 0 ? `${path.includes("?") ? "&" : "?"}${query}` : ""}`;
}

/** A path cannot hold "." and "..": those go into the query. */
export function lockPath(name, action = "") {
  const tail = action === "" ? "" : `/${action}`;
  if (name === "." || name === "..") return `locks/${tail}?name=${name}`;
  return `locks/${encodeURIComponent(name)}${tail}`;
}

/**
 * Which headers go on. Those that concern one connection only (RFC 9110, 7.6.1) stay behind. What the fence decides by is
 * the sidecar's alone to say: such headers of the application's are dropped, also in spellings that some servers take for
 * the same (`Fencing_Token` and `Fencing-Token` are one variable in CGI and WSGI).
 */

export const TOKEN_HEADER = "fencing-token";
export const TIMESTAMP_HEADER = "lamport-timestamp";

const OF_THE_CONNECTION = new Set([
  ...["connection", "keep-alive", "proxy-connection", "proxy-authenticate", "proxy-authorization"],
  ...["te", "trailer", "transfer-encoding", "upgrade", "http2-settings"],
]);
/** `Expect` was answered here; the host is that of the storage. */
const OF_THE_REQUEST = new Set(["host", "expect"]);
const OF_THE_FENCE = new Set([TOKEN_HEADER, "fencing-mode", TIMESTAMP_HEADER]);

/** Names as they came, with all their values. */
export type Headers = readonly (readonly [name: string, values: readonly string[]])[];

type Dropped = (name: string) => boolean;

export const forStorage = (raw: readonly string[]): Headers =>
  kept(raw, (name) => OF_THE_REQUEST.has(name) || OF_THE_FENCE.has(name.replaceAll("_", "-")));

export const forApplication = (raw: readonly string[]): Headers => kept(raw, (name) => name === TIMESTAMP_HEADER);

function kept(raw: readonly string[], dropped: Dropped): Headers {
  const named = new Set<string>();
  const headers = new Map<string, [string, string[]]>();
  for (let i = 0; i + 1 < raw.length; i += 2) {
    const name = raw[i] as string;
    const value = raw[i + 1] as string;
    const key = name.toLowerCase();
    if (key === "connection") for (const option of value.split(",")) named.add(option.trim().toLowerCase());
    if (OF_THE_CONNECTION.has(key) || dropped(key)) continue;
    const known = headers.get(key);
    if (known) known[1].push(value);
    else headers.set(key, [name, [value]]);
  }
  return [...headers].filter(([key]) => !named.has(key)).map(([, header]) => header);
}

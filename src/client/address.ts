/** Where a server is: "host", "host:port", "[IPv6]:port", "unix:/path". */
import { isIP, isIPv6 } from "node:net";
import { show } from "./duration.js";
import { invalid } from "./errors.js";

export interface Address {
  /** For people. */
  readonly text: string;
  /** For grpc-js. */
  readonly target: string;
  /** Only this machine can reach it. */
  readonly local: boolean;
}

const PORT_DEFAULT = 7420;
const HOST = /^(?=.{1,253}$)[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?$/;

const isLoopback = (host: string): boolean =>
  host.toLowerCase() === "localhost" || host === "::1" || (isIP(host) === 4 && host.startsWith("127."));

/** Throws INVALID. */
export function parseAddress(text: string): Address {
  if (text.startsWith("unix:")) {
    const path = text.slice("unix:".length).replace(/^\/\/(?=\/)/, "");
    if (path === "" || path.includes("\0")) throw invalid(`${show(text)} names no socket`);
    return { text, target: `unix:${path}`, local: true };
  }
  const bare = isIPv6(text);
  const match = bare ? null : /^(?:\[([^\]]*)\]|([^:]*))(?::(\d{1,5}))?$/.exec(text);
  const host = bare ? text : (match?.[1] ?? match?.[2] ?? "");
  const port = Number(match?.[3] ?? PORT_DEFAULT);
  const bracketed = match?.[1] !== undefined;
  const named = HOST.test(host) && (isIP(host) === 4 || !/^[\d.]+$/.test(host));
  const known = bare || (bracketed ? isIPv6(host) : named);
  if (!known || port < 1 || port > 65_535) {
    throw invalid(`${show(text)} is no address; expected "host:port", "[IPv6]:port" or "unix:/path"`);
  }
  const authority = isIPv6(host) ? `[${host}]:${port}` : `${host}:${port}`;
  return { text: authority, target: `dns:${authority}`, local: isLoopback(host) };
}

/** The addresses of a target: as given, else of $LEASEHOLD_ADDR, else localhost. Several are separated by commas. */
export function parseTarget(target: string | readonly string[] | undefined): readonly Address[] {
  const given = target ?? (process.env.LEASEHOLD_ADDR || `localhost:${PORT_DEFAULT}`);
  const texts = typeof given === "string" ? given.split(",") : given;
  if (!Array.isArray(texts) || texts.length === 0 || texts.length > 100) throw invalid("the target names no address");
  return texts.map((text: unknown) => {
    if (typeof text !== "string") throw invalid(`${show(text)} is no address`);
    return parseAddress(text.trim());
  });
}

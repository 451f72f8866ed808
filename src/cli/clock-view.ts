/** Whose clock is off, as `leasehold status` tells it. */
import type { leasehold } from "@leasehold/client/wire";
import { duration, plain, plural } from "./output.js";

// A decoded message has all defaults; the generated types of nested messages just do not say so.
type WireSkew = leasehold.v1.ClockSkew;
type WireClock = leasehold.v1.ClientClock;

/** What Status tells of clocks; null: a server that does not measure them. */
export function clockSkewOf(status: leasehold.v1.StatusResponse): WireSkew | null {
  return (status.clockSkew as WireSkew | null | undefined) ?? null;
}

const clientsOf = (skew: WireSkew) => skew.clients as WireClock[];

export function clockSkewForJson(skew: WireSkew | null) {
  if (skew === null) return null;
  const { measured, skewed, warnMs, serverAheadMs } = skew;
  return { measured, skewed, warnMs, serverAheadMs, clients: clientsOf(skew).map(clockForJson) };
}

function clockForJson({ owner, client, leaseDisplayId, offsetMs, errorMs, measuredAgoMs }: WireClock) {
  return { owner, client, leaseDisplayId, offsetMs, errorMs, measuredAgoMs };
}

/** Rows of a list: how many are off, then who. */
export function clockRows(skew: WireSkew | null): [string, string][] {
  if (skew === null) return [];
  const { measured, skewed, warnMs, serverAheadMs } = skew;
  if (measured === 0) return [["clocks", "no client tells its wall clock"]];
  const limit = duration(warnMs);
  const texts =
    skewed === 0
      ? [`${plural(measured, "client")} measured, none is off by more than ${limit}`]
      : [`${skewed} of ${plural(measured, "client")} off by more than ${limit}`];
  if (serverAheadMs !== 0) {
    texts.push(`most agree that this server is ${direction(serverAheadMs)}: its clock is probably the one that is off`);
  }
  const clients = clientsOf(skew);
  texts.push(...clients.map(clockText));
  if (skewed > clients.length) texts.push(`and ${skewed - clients.length} more`);
  return texts.map((text, i) => [i === 0 ? "clocks" : "", text]);
}

/** "billing/7f9c is 12.3s ahead (±2ms), measured 4.1s ago" */
function clockText(clock: WireClock): string {
  const { offsetMs, errorMs, measuredAgoMs } = clock;
  const ago = `measured ${duration(measuredAgoMs)} ago`;
  if (errorMs > 0) return `${nameOf(clock)} is ${direction(offsetMs)} (±${duration(errorMs)}), ${ago}`;
  return `${nameOf(clock)} is ${offsetMs > 0 ? "at least" : "about"} ${direction(offsetMs)}, ${ago}`;
}

function nameOf({ owner, client, leaseDisplayId }: WireClock): string {
  if (owner) return plain(owner);
  if (leaseDisplayId) return `the owner of lease ${plain(leaseDisplayId)}`;
  return client ? `a client with ${plain(client)}` : "a client without a name";
}

const direction = (ms: number) => `${duration(Math.abs(ms))} ${ms > 0 ? "ahead" : "behind"}`;

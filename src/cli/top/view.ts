/** `leasehold top` as lines of text, for a terminal of a given size or for a pipe. */
import { modeText, ownerText } from "../lock-views.js";
import { duration, plain, table } from "../output.js";
import type { Sample } from "./sample.js";

/** Headings and gaps: two lines of header, and a title, a heading and an empty line for each of three tables. */
const FIXED_LINES = 2 + 3 * 3;

/** How many rows each table has on a terminal of so many lines; at least one. */
export const rowsFor = (lines: number): number => Math.max(1, Math.floor((lines - FIXED_LINES) / 3));

const count = (value: number): string => value.toLocaleString("en-US");

/** Grants or tokens per second, with a fraction where it says something. */
export function rateText(perSecond: number): string {
  if (perSecond >= 100) return count(Math.round(perSecond));
  return perSecond >= 10 ? perSecond.toFixed(1) : perSecond.toFixed(2);
}

/** `trouble`: why the sample is an old one. */
export function view(sample: Sample, rows: number, trouble = ""): string[] {
  return [...header(sample, trouble), ...hottest(sample, rows), ...waits(sample, rows), ...holds(sample, rows)];
}

function header({ address, status, tokensPerSecond }: Sample, trouble: string): string[] {
  const { version, uptimeMs, serving, notServingReason, leases, locks, holds, waiters, sessions, lastToken } = status;
  const serves = serving ? "serving" : `NOT SERVING: ${plain(notServingReason)}`;
  const tokens = tokensPerSecond === null ? "-" : rateText(tokensPerSecond);
  return [
    `leasehold ${plain(version)} at ${address}, up for ${duration(uptimeMs)}, ${trouble ? `NO ANSWER: ${trouble}` : serves}`,
    `leases ${count(leases)}  locks ${count(locks)}  held ${count(holds)}  waiting ${count(waiters)}  ` +
      `tokens/s ${tokens}  last token ${lastToken}  sessions ${count(sessions)}`,
  ];
}

function section(title: string, headings: readonly string[], rows: readonly (readonly string[])[], none: string) {
  const body = rows.length > 0 ? table(headings, rows).trimEnd().split("\n") : [none];
  return ["", title, ...body];
}

function hottest({ top }: Sample, rows: number): string[] {
  const cells = (top.hottest ?? []).slice(0, rows).map(({ name, grantsPerSecond }) => {
    return [rateText(grantsPerSecond ?? 0), plain(name ?? "")];
  });
  return section("HOTTEST LOCKS", ["GRANTS/S>", "NAME"], cells, "no grants of late");
}

function waits({ top }: Sample, rows: number): string[] {
  const cells = (top.longestWaits ?? [])
    .slice(0, rows)
    .map(({ name, waiter }) => [
      duration(waiter?.waitedMs ?? 0),
      plain(name ?? ""),
      ownerText(waiter?.owner),
      modeText(waiter ?? {}),
      String(waiter?.position ?? 0),
    ]);
  const headings = ["WAITED>", "NAME", "OWNER", "MODE", "#>"];
  return section("LONGEST WAITS", headings, cells, "nobody waits");
}

function holds({ top }: Sample, rows: number): string[] {
  const cells = (top.longestHolds ?? [])
    .slice(0, rows)
    .map(({ name, holder }) => [
      duration(holder?.heldMs ?? 0),
      plain(name ?? ""),
      ownerText(holder?.owner) + (holder?.revoking ? " (being taken away)" : ""),
      modeText(holder ?? {}),
      String(holder?.token ?? 0),
      duration(holder?.leaseRemainingMs ?? 0),
    ]);
  const headings = ["HELD>", "NAME", "OWNER", "MODE", "TOKEN>", "LEASE ENDS IN>"];
  return section("LONGEST HOLDS", headings, cells, "nothing is held");
}

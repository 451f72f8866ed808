import type { HistoryEvent } from "../../src/client/index.js";
import { checkHistory, readHistory } from "../../src/verify/check.js";
import type { Findings, Violation } from "../../src/verify/findings.js";

async function* chunksOf(text: string) {
  yield Buffer.from(text);
}

export const lines = (events: readonly HistoryEvent[]): string =>
  events.map((event) => `${JSON.stringify(event)}\n`).join("");

export async function findingsOf(text: string, skewNs = 0): Promise<Findings[]> {
  return checkHistory(await readHistory([{ name: "h", chunks: chunksOf(text) }], skewNs));
}

export async function violationsOf(events: readonly HistoryEvent[], skewNs = 0): Promise<Violation[]> {
  return (await findingsOf(lines(events), skewNs)).flatMap(({ violations }) => violations);
}

export const rulesOf = (violations: readonly Violation[]): string[] =>
  [...new Set(violations.map(({ rule }) => rule))].sort();

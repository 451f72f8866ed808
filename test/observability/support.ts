/** A server whose disk a test makes slow, and the shipped rules with shorter times. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import type { Journal, JournalSnapshot, JournalStats, Mutations, Recovery } from "../../src/server/journal/journal.js";

const shipped = fileURLToPath(new URL("../../deploy", import.meta.url));

export const shippedFile = (path: string): string => readFileSync(join(shipped, path), "utf8");

/** A journal of which a test says how long a write takes, and that it fails. */
export class SlowJournal implements Journal {
  delayMs = 0;

  constructor(private readonly inner: Journal) {}

  get store(): string {
    return this.inner.store;
  }

  open(): Promise<Recovery> {
    return this.inner.open();
  }

  async append(mutations: Mutations): Promise<void> {
    await this.inner.append(mutations);
    if (this.delayMs > 0) await new Promise((resolve) => setTimeout(resolve, this.delayMs));
  }

  snapshot(): Promise<JournalSnapshot> {
    return this.inner.snapshot();
  }

  stats(): JournalStats {
    return this.inner.stats();
  }

  close(): Promise<void> {
    return this.inner.close();
  }
}

/** What a test has no time to wait for. Whatever else the rules say stays as it is. */
const shorter: readonly [RegExp, string][] = [
  [/\[(?:10|5|2)m\]/g, "[6s]"],
  [/for: (?:10|5|2|1)m$/gm, "for: 2s"],
  [/(oldest_hold_seconds\{.*\}) > 3600$/gm, "$1 > 3"],
];

/** The shipped rules, with windows and times of seconds in place of minutes. */
export function quickRules(): Record<string, string> {
  const quick = (file: string) =>
    shorter.reduce((text, [pattern, by]) => text.replace(pattern, by), shippedFile(`prometheus/rules/${file}`));
  return { "recording.yml": quick("recording.yml"), "alerts.yml": quick("alerts.yml") };
}

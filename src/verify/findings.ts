/** What a checker found. */
import type { Operation } from "./history.js";
import type { Rule } from "./rules.js";

/** Something that happened, for the timeline of a violation. */
export interface Moment {
  readonly ns: number;
  readonly process: string;
  readonly text: string;
  /** Where it is: the history and the line of the call. */
  readonly source: string;
  readonly line: number;
}

export interface Violation {
  readonly rule: Rule;
  /** The lock, the resource, or the process. */
  readonly subject: string;
  readonly explanation: string;
  readonly events: readonly Moment[];
}

export interface Findings {
  readonly checker: string;
  /** How many were looked at, and of what. */
  readonly looked: number;
  readonly what: string;
  /** The first ones. */
  readonly violations: readonly Violation[];
  /** All of them. */
  readonly violationsTotal: number;
}

/** How many violations of one checker are told. */
const VIOLATIONS_MAX = 100;
/** How many operations of one violation are told. */
const OPERATIONS_MAX = 10;

export class Finder {
  readonly #checker: string;
  readonly #skewNs: number;
  readonly #violations: Violation[] = [];
  #total = 0;

  constructor(checker: string, skewNs: number) {
    this.#checker = checker;
    this.#skewNs = skewNs;
  }

  /** Notes a violation. What it takes to explain it is computed for those only that are told. */
  found(
    rule: Rule,
    subject: string,
    explain: () => { readonly explanation: string; readonly operations: readonly Operation[] },
  ): void {
    this.#total++;
    if (this.#violations.length >= VIOLATIONS_MAX) return;
    const { explanation, operations } = explain();
    const unique = [...new Set(operations)];
    const events = unique.slice(0, OPERATIONS_MAX).flatMap((operation) => moments(operation, this.#skewNs));
    events.sort((a, b) => a.ns - b.ns);
    const more = unique.length > OPERATIONS_MAX ? ` (and ${unique.length - OPERATIONS_MAX} more operations)` : "";
    this.#violations.push({ rule, subject, explanation: explanation + more, events });
  }

  findings(looked: number, what: string): Findings {
    return { checker: this.#checker, looked, what, violations: this.#violations, violationsTotal: this.#total };
  }
}

const GOT: Readonly<Partial<Record<Operation["op"], (operation: Operation) => string>>> = {
  acquire: ({ value, locks }) => (locks.length > 1 ? `tokens from ${value}` : `token ${value}`),
  range: ({ value }) => `from ${value}`,
};

/** Call and result as they were recorded, without the widening by the skew. */
function moments(operation: Operation, skewNs: number): Moment[] {
  const { process, op, id, subject, source, line, value, outcome } = operation;
  const at = { process, source, line };
  const invokeNs = operation.invokeNs + skewNs;
  const returnNs = operation.returnNs - skewNs;
  const modes = [...new Set(operation.locks.map(({ mode }) => mode))].join(", ");
  const what = [`#${id}`, op, subject, modes, op === "acquire" || value === 0 ? "" : `token ${value}`];
  const call = what.filter((word) => word !== "").join(" ");
  if (op === "tick") return [{ ...at, ns: invokeNs, text: `#${id} tick: timestamp ${value}` }];
  if (op === "refresh") return [{ ...at, ns: invokeNs, text: `${call}: ${outcome === "ok" ? "held" : "lost"}` }];
  if (op === "observe") return [{ ...at, ns: invokeNs, text: call }];
  const named = op === "range" ? `#${id} range` : call;
  const called = { ...at, ns: invokeNs, text: `${named} ...` };
  if (outcome === "unfinished") return [called];
  const got = outcome === "ok" && value > 0 ? (GOT[op]?.(operation) ?? "ok") : outcome;
  return [called, { ...at, ns: returnNs, text: `${named}: ${got}` }];
}

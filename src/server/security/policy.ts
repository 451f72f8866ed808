/**
 * The policy: which principal may do what with which locks, and how much. Default deny: what no rule permits is refused.
 *
 *     rules:
 *       - principal: token/ci          # exactly this one; "token/*": all that begin so; "*": everybody who is known
 *         prefix: ci/                  # names that begin so; "": all
 *         verbs: [acquire, observe]
 *     quotas:                          # the first that fits counts
 *       - principal: token/ci
 *         leases: 1000
 *         requestsPerSecond: 500
 *
 * What matches a principal is put together once and kept; a check looks at the prefixes of one verb.
 */
import type { Demand, Verb } from "./access.js";

export interface Rule {
  readonly principal: string;
  readonly prefix: string;
  readonly verbs: readonly Verb[];
}

/** What one principal may have, and ask for. */
export interface Allowance {
  readonly leases: number;
  readonly locks: number;
  readonly waiters: number;
  /** 0: no bound. */
  readonly requestsPerSecond: number;
  readonly requestsBurst: number;
}

export type QuotaRule = { readonly [K in keyof Allowance]?: number | undefined } & { readonly principal: string };

/** What holds for one principal. */
export interface Permissions {
  readonly allowance: Allowance;
  permits(demand: Demand): boolean;
}

const PRINCIPALS_KEPT_MAX = 10_000;

export class Policy {
  readonly #rules: readonly Rule[];
  readonly #quotas: readonly QuotaRule[];
  readonly #fallback: Allowance;
  readonly #kept = new Map<string, Permissions>();

  constructor(rules: readonly Rule[], quotas: readonly QuotaRule[], fallback: Allowance) {
    this.#rules = rules;
    this.#quotas = quotas;
    this.#fallback = fallback;
  }

  /** Without a file: everybody who is known may take and observe all locks, and nobody may administer. */
  static withoutFile(fallback: Allowance): Policy {
    return new Policy([{ principal: "*", prefix: "", verbs: ["acquire", "observe"] }], [], fallback);
  }

  of(principal: string): Permissions {
    const kept = this.#kept.get(principal);
    if (kept !== undefined) return kept;
    if (this.#kept.size >= PRINCIPALS_KEPT_MAX) this.#kept.clear(); // put together anew when they come again
    const permissions = this.#putTogether(principal);
    this.#kept.set(principal, permissions);
    return permissions;
  }

  #putTogether(principal: string): Permissions {
    const prefixes: Record<Verb, string[]> = { acquire: [], observe: [], admin: [] };
    for (const rule of this.#rules) {
      if (!matches(rule.principal, principal)) continue;
      for (const verb of rule.verbs) prefixes[verb].push(rule.prefix);
    }
    const may = (verb: Verb, name: string) => prefixes[verb].some((prefix) => name.startsWith(prefix));
    const quota = this.#quotas.find((one) => matches(one.principal, principal));
    return {
      allowance: allowanceOf(this.#fallback, quota),
      permits: ({ verb, or, name }) => may(verb, name) || (or !== undefined && may(or, name)),
    };
  }
}

function allowanceOf(fallback: Allowance, quota: QuotaRule | undefined): Allowance {
  return {
    leases: quota?.leases ?? fallback.leases,
    locks: quota?.locks ?? fallback.locks,
    waiters: quota?.waiters ?? fallback.waiters,
    requestsPerSecond: quota?.requestsPerSecond ?? fallback.requestsPerSecond,
    requestsBurst: quota?.requestsBurst ?? fallback.requestsBurst,
  };
}

/** "*" at the end of a pattern stands for anything. */
function matches(pattern: string, principal: string): boolean {
  return pattern.endsWith("*") ? principal.startsWith(pattern.slice(0, -1)) : principal === pattern;
}

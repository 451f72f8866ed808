import { invalid, show } from "../errors.js";
import { checkKeys } from "../token.js";
import { CAUSAL_KEYS, type CausalOptions, checkTiming } from "./options.js";
import { type Limit, Replica, within } from "./replica.js";
import type { System } from "./system.js";

const REPLICAS_MAX = 100;
/** The name of a header field: a token of RFC 9110, as gRPC permits it too. */
const HEADER_NAME = /^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$/;

/** What the sessions of one system have in common: its replicas, whose turn it is, and the limits. */
export class Shared<D, S, P> {
  readonly system: System<D, S, P>;
  /** In small letters: that is how they arrive, and gRPC has no others. */
  readonly header: string;
  readonly waitMs: number;
  readonly #replicas: readonly Replica<D, S, P>[];
  #turn = 0;

  /** Throws INVALID. */
  constructor(system: System<D, S, P>, options: CausalOptions) {
    const { header = "Causal-Position" } = options;
    if (typeof header !== "string" || !HEADER_NAME.test(header))
      throw invalid(`${show(header)} is no name of a header`);
    const { waitMs, pollMs } = checkTiming(options);
    this.system = system;
    this.header = header.toLowerCase();
    this.waitMs = waitMs;
    this.#replicas = system.replicas.map((server, index) => new Replica(index, server, system.covers, pollMs));
  }

  /** The replicas that answer, another one first each time. */
  inTurn(): Replica<D, S, P>[] {
    const there = this.#replicas.filter((replica) => !replica.away);
    if (there.length === 0) return [];
    this.#turn = (this.#turn + 1) % this.#replicas.length;
    const first = this.#turn % there.length;
    return [...there.slice(first), ...there.slice(0, first)];
  }

  /** The first of these to reach the position; undefined: none in time. Rejects with the reason of the signal. */
  firstToReach(
    position: P,
    replicas: readonly Replica<D, S, P>[],
    limit: Limit,
  ): Promise<Replica<D, S, P> | undefined> {
    const endings: (() => void)[] = [];
    const endAll = () => {
      for (const end of endings) end();
    };
    let left = replicas.length;
    const first = new Promise<Replica<D, S, P> | undefined>((resolve) => {
      for (const replica of replicas) {
        endings.push(
          replica.wait(position, (reached) => {
            if (reached) resolve(replica);
            else if (--left === 0) resolve(undefined);
          }),
        );
      }
    });
    return within(first, limit, () => {}).finally(endAll);
  }
}

/** Checks what all kinds have in common. Throws INVALID. */
export function checkCausalOptions<R>(
  options: { readonly replicas: readonly R[] },
  more: readonly string[] = [],
): void {
  checkKeys(options, [...CAUSAL_KEYS, ...more], "the options");
  const { replicas } = options;
  if (!Array.isArray(replicas) || replicas.length > REPLICAS_MAX) {
    throw invalid(`replicas must be an array of at most ${REPLICAS_MAX}, not ${show(replicas)}`);
  }
}

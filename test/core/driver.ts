/** Drives a core in unit tests: unary calls, one batch each, and time by hand. */
import { Core, emptyEffects } from "../../src/server/core/core.js";
import type {
  Acquire,
  Command,
  CoreEvent,
  CoreLimits,
  Outcome,
  Principal,
  Request,
} from "../../src/server/core/types.js";
import { CLUSTER_ID, testLimits } from "./limits.js";

/** An exclusive Acquire through a lease, with whatever is given instead. */
export const acquireOf = (name: string, leaseId: string, more: Partial<Acquire> = {}): Acquire => ({
  kind: "acquire",
  items: [{ name, mode: "exclusive", permits: 0, permitLimit: 0 }],
  all: false,
  holder: { kind: "lease", leaseId },
  waitMs: 0,
  pollMs: 3_600_000,
  requestId: "",
  owner: "",
  metadata: "",
  wallMs: 0,
  lockDelayMs: 0,
  maxHoldMs: 0,
  contenderId: "",
  heldTokens: [],
  ...more,
});

/** What one step brought. */
export interface Stepped {
  readonly outcomes: readonly Outcome[];
  readonly events: readonly CoreEvent[];
  readonly mutations: readonly (string | null)[];
}

const commandOf = (request: Request, principal: Principal | undefined): Command => ({
  kind: "call",
  request,
  route: { kind: "call" },
  ...(principal === undefined ? {} : { principal }),
  observed: 0,
});

export class Driver {
  readonly core: Core;
  nowMs = 0;

  constructor(limits: Partial<CoreLimits> = {}, entries = new Map<string, string>()) {
    const init = { limits: { ...testLimits, ...limits }, clusterId: CLUSTER_ID, nowMs: 0 };
    this.core = Core.recover(entries, init, emptyEffects());
  }

  /** The last outcome told in this step is the caller's, unless it waits. */
  call(request: Request, principal?: Principal): Outcome | undefined {
    return this.#step(commandOf(request, principal)).outcomes.at(-1);
  }

  /** What the call writes, by key. */
  mutationsOf(request: Request, principal: Principal): Map<string, string | null> {
    const { mutations } = this.#step(commandOf(request, principal));
    const written = new Map<string, string | null>();
    for (let i = 0; i < mutations.length; i += 2) written.set(mutations[i] as string, mutations[i + 1] ?? null);
    return written;
  }

  createLease(leaseId: string, ttlMs: number): void {
    this.call({ kind: "createLease", leaseId, ttlMs, owner: "", metadata: "", progressEveryMs: 0 });
  }

  /** One slice of what is due. */
  expire(): Stepped {
    return this.#step({ kind: "expire" });
  }

  get isDue(): boolean {
    return (this.core.nextDueMs ?? Number.POSITIVE_INFINITY) <= this.nowMs;
  }

  #step(command: Command): Stepped {
    const fx = emptyEffects();
    this.core.step(command, this.nowMs, fx);
    this.core.seal(this.nowMs, fx, false);
    const outcomes = fx.replies.flatMap((reply) => (reply.kind === "outcome" ? [reply.outcome] : []));
    return { outcomes, events: fx.events, mutations: fx.mutations };
  }
}

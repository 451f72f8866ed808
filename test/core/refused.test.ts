// Commands of a session that were refused on their way to the core.
import { expect, test } from "vitest";
import { Core, emptyEffects } from "../../src/server/core/core.js";
import type { Acquire, Attach, Command, Outcome, Refusal, Request } from "../../src/server/core/types.js";
import { acquireOf } from "./driver.js";
import { CLUSTER_ID, testLimits } from "./limits.js";

const denied: Refusal = { kind: "refused", reason: "DENIED", message: "not any more" };
const onSession = (name: string, waitMs = 0): Acquire =>
  acquireOf(name, "", { holder: { kind: "session", seq: 1 }, waitMs });

class Session {
  readonly #core = Core.recover(new Map(), { limits: testLimits, clusterId: CLUSTER_ID, nowMs: 0 }, emptyEffects());
  #epoch = 0;
  #frame = 1;

  attach(outstanding: readonly number[] = []): Outcome[] {
    this.#epoch++;
    this.#frame = 1;
    const sessionId = this.#epoch === 1 ? "" : "s";
    const rest = { claims: [], outstanding, abandoned: [], clusterId: "", highestToken: 0, observed: 0 };
    const attach: Attach = {
      kind: "attach",
      sessionId,
      newSessionId: "s",
      epoch: this.#epoch,
      ...rest,
      route: { kind: "stream" },
    };
    return this.#step(attach).map(([, outcome]) => outcome);
  }

  send(...requests: [seq: number, request: Request | Refusal][]): [seq: number, outcome: Outcome][] {
    return this.#step({
      kind: "frame",
      sessionId: "s",
      epoch: this.#epoch,
      frame: ++this.#frame,
      ackedBelow: 0,
      acked: [],
      renew: false,
      progress: [],
      observed: 0,
      requests: requests.map(([seq, request]) => ({ seq, request })),
    });
  }

  #step(command: Command): [number, Outcome][] {
    const fx = emptyEffects();
    this.#core.step(command, 0, fx);
    this.#core.seal(0, fx, false);
    return fx.replies.flatMap((reply) => (reply.kind === "outcome" ? [[reply.seq, reply.outcome]] : []));
  }
}

const createLease: Request = {
  kind: "createLease",
  leaseId: "l",
  ttlMs: 10_000,
  owner: "",
  metadata: "",
  progressEveryMs: 0,
};

test("one that was never permitted is answered in its place, and has no effect", () => {
  const session = new Session();
  session.attach();
  const outcomes = session.send([1, createLease], [2, denied], [3, onSession("a")]);
  expect(outcomes.map(([seq, { kind }]) => [seq, kind])).toEqual([
    [1, "lease"],
    [2, "refused"],
    [3, "grant"],
  ]);
});

test("one that was permitted when it came for the first time is answered with its effect", () => {
  const session = new Session();
  session.attach();
  session.send([1, createLease], [2, onSession("a")]);
  // The stream broke before the answers arrived; meanwhile the policy has changed.
  session.attach([1, 2]);
  const outcomes = session.send([1, denied], [2, denied], [3, denied]);
  expect(outcomes.map(([seq, { kind }]) => [seq, kind])).toEqual([
    [1, "lease"],
    [2, "grant"],
    [3, "refused"],
  ]);
});

test("one that waits goes on waiting", () => {
  const session = new Session();
  session.attach();
  session.send([1, createLease], [2, onSession("a")], [3, onSession("a", 5_000)]);
  session.attach([1, 2, 3]);
  expect(session.send([2, denied], [3, denied]).map(([seq]) => seq)).toEqual([2]);
  const outcomes = new Map(session.send([4, { kind: "release", name: "a", token: 1 }]));
  expect([outcomes.get(4)?.kind, outcomes.get(3)?.kind]).toEqual(["released", "grant"]);
});

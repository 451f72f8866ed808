/**
 * A seeded random simulation of clients, a network, a disk and the real core.
 *
 * Session clients and unary clients acquire in all modes, several locks at once, with lock delays and maximum holds; they
 * renew, report progress or hang, release, hand over, downgrade, cancel and revoke; an administrator takes locks away. In
 * most runs they are authenticated as one of several principals, and now and then one reaches for what is another's.
 * Streams break and are resumed; calls are
 * delayed, reordered, doubled and cut off; the disk is slow and sometimes fails; the server dies and comes back. After
 * every step of the core the checker judges it, the reference model says what should have come of it, and after every action what the clients believe is compared with what
 * the server and its disk hold.
 *
 * One random seed decides everything: the same seed gives the same run.
 */
import { Core } from "../../src/server/core/core.js";
import {
  anybody,
  type Command,
  type CoreEvent,
  type CoreLimits,
  type HolderSpec,
  type LockMode,
  type Outcome,
  type Principal,
  type Reply,
  type Request,
} from "../../src/server/core/types.js";
import { CLUSTER_ID, testLimits } from "./limits.js";
import { type Belief, checkTogether } from "./sim/belief.js";
import { type FrameMessage, type Hello, SimCall, SimStream } from "./sim/network.js";
import { Random } from "./sim/random.js";
import { type CoreClass, SimServer, type Slices } from "./sim/server.js";
import { SessionClient } from "./sim/session-client.js";
import { drawTrespass, drawVictim, trespassOn } from "./sim/trespass.js";
import { UnaryClient } from "./sim/unary-client.js";
import { ensure } from "./sim/violation.js";

export interface SimOptions {
  readonly seed: number;
  readonly steps: number;
  /** The core to judge; the real one by default. */
  readonly core?: CoreClass;
}

export interface SimStats {
  grants: number;
  resumes: number;
  crashes: number;
  failedAppends: number;
  sets: number;
  shared: number;
  semaphores: number;
  transfers: number;
  downgrades: number;
  deadlocks: number;
  taken: number;
  maxHolds: number;
  hung: number;
  delays: number;
  denied: number;
  overQuota: number;
}

const noStats = (): SimStats => ({
  grants: 0,
  resumes: 0,
  crashes: 0,
  failedAppends: 0,
  sets: 0,
  shared: 0,
  semaphores: 0,
  transfers: 0,
  downgrades: 0,
  deadlocks: 0,
  taken: 0,
  maxHolds: 0,
  hung: 0,
  delays: 0,
  denied: 0,
  overQuota: 0,
});

/** Runs a simulation. Throws at the first violation, naming seed and step. */
export function simulate({ seed, steps, core = Core }: SimOptions): SimStats {
  const world = new World(seed, core);
  for (let step = 1; step <= steps; step++) {
    try {
      world.step();
      if (step === steps) world.end();
    } catch (error) {
      const what = error instanceof Error ? error.message : String(error);
      const advice = `LEASEHOLD_SIM_SEED=${seed} LEASEHOLD_SIM_STEPS=${step}`;
      throw new Error(`step ${step} of seed ${seed}: ${what}\n  again with ${advice}`, { cause: error });
    }
  }
  return world.stats;
}

class World {
  readonly random: Random;
  readonly clusterId = CLUSTER_ID;
  readonly lockNames: readonly string[];
  readonly stats = noStats();
  nowMs = 1_000;
  #ids = 0;
  readonly #server: SimServer;
  readonly #sessions: SessionClient[] = [];
  readonly #unaries: UnaryClient[] = [];
  /** Whoever may ask; with one who is nobody in particular, authentication is off. */
  readonly #principals: Principal[];
  readonly #plainIds = new Map<Principal, number>();
  readonly #owner = new Map<SimStream, SessionClient>();
  #streams: SimStream[] = [];
  /** Messages under way: in any order. */
  readonly #messages: (() => void)[] = [];
  /** Calls that the server has and has not answered. */
  readonly #calls = new Set<SimCall>();
  /** How often time makes a leap. */
  readonly #leaping: number;
  readonly #modes = new Map<string, LockMode>();
  readonly #permitLimits = new Map<string, number>();
  /** Tokens that were taken away at once: their holders may go on believing. */
  readonly #takenNow = new Set<number>();

  constructor(seed: number, core: CoreClass) {
    this.random = new Random(seed);
    const { random } = this;
    this.lockNames = ["a", "b", "c", "d"].slice(0, random.between(1, 4));
    for (const name of this.lockNames) {
      this.#modes.set(name, random.pick(["exclusive", "shared", "semaphore"]));
      this.#permitLimits.set(name, random.between(1, 4));
    }
    this.#leaping = random.pick([0.001, 0.004, 0.02]);
    const slices: Slices = random.pick(["large", "large", "large", "driven", "loose", "loose"]);
    const loose = slices === "loose";
    const limits: CoreLimits = {
      ...testLimits,
      resumeMs: random.pick([200, 800]),
      expirySliceMax: slices === "large" ? 1_000 : random.pick([1, 2]),
      holdersPerLockMax: random.pick([2, 1_000, 1_000]),
      // Which limit is met first is not the model's business.
      holdsPerLeaseMax: loose ? random.pick([2, 1_000]) : 1_000,
      waitersPerLockMax: loose ? random.pick([3, 1_000]) : 1_000,
      commandsPerSessionMax: loose ? random.pick([6, 1_000]) : 1_000,
      deadlockSearchMax: loose ? random.pick([2, 1_000]) : 1_000,
      requestRememberedMs: 1_000_000_000,
    };
    this.#server = new SimServer(core, limits, slices, () => this.nowMs, {
      deliver: (reply) => this.#deliver(reply),
      happened: (event, command) => this.#happened(event, command),
      dropped: () => this.#dropped(),
    });
    this.#principals = random.chance(0.7) ? ["p", "p/1", "q"].map((name) => this.#drawPrincipal(name)) : [anybody];
    // While some of the clients are still those of a time without authentication.
    if (random.chance(0.5)) this.#principals.push(anybody);
    const clients = random.between(2, 5);
    for (let i = 0; i < clients; i++) {
      if (random.chance(0.5)) this.#sessions.push(new SessionClient(this, random.pick(this.#principals)));
      else this.#unaries.push(new UnaryClient(this, random.pick(this.#principals)));
    }
    this.#server.start(random.between(0, 10_000));
  }

  /** With little of something, or with more than it can use. */
  #drawPrincipal(name: string): Principal {
    const { random } = this;
    const most = () => random.pick([2, 3, 1_000, 1_000, 1_000, 1_000]);
    return { name, quota: { leasesMax: most(), locksMax: most(), waitersMax: most() } };
  }

  freshId(): string {
    return `id${++this.#ids}`;
  }

  somePrincipal(): Principal {
    return this.random.pick(this.#principals);
  }

  plainId(principal: Principal): string {
    const id = (this.#plainIds.get(principal) ?? 0) + 1;
    this.#plainIds.set(principal, id);
    return `request-${id}`;
  }

  modeOf(name: string): LockMode {
    return this.#modes.get(name) as LockMode;
  }

  permitLimitOf(name: string): number {
    return this.#permitLimits.get(name) as number;
  }

  /** Mostly the id of somebody who waits for that lock; now and then of anybody, or of nobody. */
  someTicket(name: string): string {
    const tickets = [...(this.#server.core?.inspect().tickets.values() ?? [])];
    const waiting = tickets.filter(({ places }) => places.some(({ lock }) => lock.name === name));
    const { random } = this;
    const from = waiting.length > 0 && random.chance(0.85) ? waiting : tickets;
    return from.length === 0 || random.chance(0.03) ? "T999999" : `T${random.pick(from).serial}`;
  }

  step(): void {
    const { random } = this;
    const leaps = random.chance(this.#leaping);
    if (leaps && (this.#server.overdueMs > 300 || random.chance(0.8))) this.#expireAll();
    this.nowMs += leaps ? random.between(50, 1_500) : random.between(0, 6);
    const action = random.between(1, 1_000);
    if (!this.#server.up) {
      if (random.chance(0.1)) this.#server.start(random.between(0, 10_000));
      else if (random.chance(0.5)) this.#clientActs();
      else this.#travel();
    } else if (action <= 300) this.#clientActs();
    else if (action <= 640) this.#travel();
    else if (action <= 780) this.#server.seal(random.chance(0.1));
    else if (action <= 900) this.#server.finishAppend();
    else if (action <= 975) this.#server.expire();
    else if (action <= 980) this.#cutCall();
    else if (action <= 985) this.#cutStream();
    else if (action <= 987) this.#server.checkRecovery();
    else if (action <= 992) this.#misfortune();
    else if (action <= 996) this.#takeAway();
    else if (action <= 998) this.#trespass();
    else this.#permitLimits.set(random.pick(this.lockNames), random.between(1, 5));
    this.#checkBeliefs();
  }

  #expireAll(): void {
    while (this.#server.overdueMs > 0) this.#server.expire();
  }

  #misfortune(): void {
    const { random } = this;
    if (random.chance(0.7)) return;
    if (this.#server.appending && random.chance(0.5)) {
      this.stats.failedAppends++;
      this.#server.failAppend(random.chance(0.5));
    } else {
      this.stats.crashes++;
      this.#server.crash(random.chance(0.5));
    }
  }

  /** An administrator takes a lock away. */
  #takeAway(): void {
    const { random } = this;
    const holds = [...(this.#server.core?.inspect().holds.values() ?? [])];
    const hold = holds.length === 0 ? undefined : random.pick(holds);
    const name = hold?.lock.name ?? random.pick(this.lockNames);
    const token = random.chance(0.3) ? 0 : random.chance(0.1) ? random.between(1, 99) : (hold?.token ?? 0);
    const now = random.chance(0.25);
    this.call(
      new SimCall({ kind: "forceRelease", name, token, message: "maintenance", now }, this.nowMs, () => undefined),
    );
  }

  /** Somebody has learned an id or a token of somebody else. */
  #trespass(): void {
    const { core } = this.#server;
    const victim = core === null ? undefined : drawVictim(core.inspect(), this, this.#principals);
    if (victim === undefined) return;
    const attach = this.random.chance(0.2) ? trespassOn(victim, this.freshId()) : undefined;
    if (attach !== undefined) {
      this.#server.submit(attach);
      return;
    }
    const request = drawTrespass(victim, this, this.someTicket(this.random.pick(this.lockNames)));
    this.call(new SimCall(request, this.nowMs, () => undefined, victim.by));
  }

  /**
   * Everybody leaves without a word, and time goes by; in some runs the server crashes again and again meanwhile. In the
   * end nothing is left.
   */
  end(): void {
    const { random } = this;
    if (!this.#server.up) this.#server.start(0);
    this.#messages.length = 0;
    for (const { id, epoch } of [...(this.#server.core?.inspect().sessions.values() ?? [])]) {
      this.#server.submit({ kind: "detach", sessionId: id, epoch });
    }
    for (const call of this.#calls) this.#server.submit({ kind: "callGone", route: call, token: null });
    const crashes = random.chance(0.3);
    // The longest TTL, twice, and after it the longest lock delay.
    for (let passedMs = 0; passedMs < 2 * 3_000 + 2_000 + 1_000; passedMs += 500) {
      this.#expireAll();
      this.nowMs += 500;
      this.#server.finishAppend();
      this.#server.seal(true);
      this.#server.finishAppend();
      if (!crashes || !random.chance(0.5)) continue;
      this.#server.seal(true);
      this.#server.crash(random.chance(0.5));
      this.#server.start(random.between(0, 10_000));
    }
    this.#expireAll();
    this.#server.checkEmpty();
  }

  #clientActs(): void {
    this.random.pick([...this.#sessions, ...this.#unaries]).act();
  }

  // ------------------------------------------------------------------------------------------ calls

  call(call: SimCall): void {
    const { random } = this;
    this.#messages.push(() => this.#arrive(call));
    while (random.chance(0.1)) {
      // Doubled on the way; whoever gets the answer to the copy, it may be the client.
      const copy = new SimCall(call.request, call.sentMs, call.onOutcome, call.principal);
      this.#messages.push(() => this.#arrive(copy));
    }
  }

  #arrive(call: SimCall): void {
    if (!this.#server.up) return;
    const { random } = this;
    if (random.chance(0.15)) call.fate = random.pick(["lost", "gone", "gone"]);
    this.#calls.add(call);
    this.#server.submit({
      kind: "call",
      request: this.#withFreshIds(call.request),
      route: call,
      principal: call.principal,
      observed: 0,
    });
  }

  #withFreshIds(request: Request): Request {
    if (request.kind === "createLease") return { ...request, leaseId: this.freshId() };
    if (request.kind !== "acquire" || request.holder.kind !== "own") return request;
    const holder: HolderSpec = { ...request.holder, leaseId: this.freshId() };
    return { ...request, holder };
  }

  /** A call is cut off while it waits. The server may notice at once, later, or never. */
  #cutCall(): void {
    const calls = [...this.#calls].filter(({ fate }) => fate === "arrives");
    if (calls.length === 0) return;
    const call = this.random.pick(calls);
    call.fate = this.random.pick(["lost", "gone"]);
    if (call.fate === "gone") this.#server.submit({ kind: "callGone", route: call, token: null });
  }

  #answer(call: SimCall, reply: Reply): void {
    if (reply.kind !== "outcome") return;
    this.#calls.delete(call);
    ensure(!call.answered, () => "a call was answered twice");
    call.answered = true;
    const { outcome } = reply;
    if (call.fate === "arrives") this.#messages.push(() => call.onOutcome(outcome, call.sentMs));
    if (call.fate !== "gone" || outcome.kind !== "grant") return;
    // Noticed when the answer is written, and that may take its time.
    const token = outcome.grants[0]?.token ?? 0;
    const { core } = this.#server;
    this.#messages.push(() => {
      if (this.#server.core === core) this.#server.submit({ kind: "callGone", route: call, token });
    });
  }

  // ------------------------------------------------------------------------------------------ streams

  connect(stream: SimStream, client: SessionClient): void {
    this.#owner.set(stream, client);
    this.#streams.push(stream);
  }

  /** One message arrives somewhere: of a call in any order, of a stream in its order. */
  #travel(): void {
    const { random } = this;
    if (this.#messages.length > 0 && random.chance(0.5)) {
      for (let arrive = random.between(1, 8); arrive > 0 && this.#messages.length > 0; arrive--) {
        const index = random.between(0, this.#messages.length - 1);
        const [message] = this.#messages.splice(index, 1);
        message?.();
      }
      return;
    }
    if (this.#streams.length === 0) return;
    const stream = random.pick(this.#streams);
    if (random.chance(0.5)) this.#toServer(stream);
    else for (let arrive = random.between(1, 12); arrive > 0; arrive--) this.#toClient(stream);
    if (!stream.clientOpen && !stream.serverOpen) this.#streams = this.#streams.filter((other) => other !== stream);
  }

  #toServer(stream: SimStream): void {
    if (!stream.serverOpen || !this.#server.up) return;
    const message = stream.toServer[0];
    if (message === undefined) {
      // All that was sent before the break has arrived; now the break itself does.
      if (!stream.clientOpen) this.#closeAtServer(stream);
      return;
    }
    if ("frame" in message) {
      if (stream.serverSession !== "") this.#frame(stream, message);
    } else this.#attach(stream, message);
  }

  #attach(stream: SimStream, hello: Hello): void {
    stream.toServer.shift();
    this.#server.submit({ kind: "attach", ...hello, newSessionId: this.freshId(), route: stream });
  }

  #frame(stream: SimStream, message: FrameMessage): void {
    stream.toServer.shift();
    this.#server.submit({ kind: "frame", ...message, sessionId: stream.serverSession, epoch: stream.epoch });
  }

  #toClient(stream: SimStream): void {
    const reply = stream.toClient.shift();
    if (reply !== undefined) this.#owner.get(stream)?.onReply(stream, reply);
    else if (!stream.serverOpen && stream.clientOpen) this.#owner.get(stream)?.onBroken(stream);
  }

  /** The connection breaks; what was under way is lost, and each end learns of it in its own time. */
  #cutStream(): void {
    const open = this.#streams.filter(({ serverOpen }) => serverOpen);
    if (open.length === 0) return;
    const stream = this.random.pick(open);
    stream.toServer.length = 0;
    if (this.random.chance(0.5)) this.#closeAtServer(stream);
    else this.#owner.get(stream)?.onBroken(stream);
  }

  #closeAtServer(stream: SimStream): void {
    stream.serverOpen = false;
    if (stream.serverSession === "") return;
    this.#server.submit({ kind: "detach", sessionId: stream.serverSession, epoch: stream.epoch });
  }

  // ------------------------------------------------------------------------------------------ the server's side

  #deliver(reply: Reply): void {
    const { route } = reply;
    if (reply.kind === "outcome") this.#count(reply.outcome);
    if (route instanceof SimCall) this.#answer(route, reply);
    else if (route instanceof SimStream) this.#write(route, reply);
  }

  #count(outcome: Outcome): void {
    const { stats } = this;
    if (outcome.kind === "grant") {
      stats.grants++;
      if (outcome.grants.length > 1) stats.sets++;
    } else if (outcome.kind === "transferred") stats.transfers++;
    else if (outcome.kind === "refused" && outcome.reason === "DEADLOCK") stats.deadlocks++;
    else if (outcome.kind === "refused" && outcome.reason === "DENIED") stats.denied++;
    else if (outcome.kind === "refused" && outcome.message.startsWith("principal ")) stats.overQuota++;
    else if (outcome.kind === "busy" && outcome.delayRemainingMs > 0) stats.delays++;
  }

  #happened(event: CoreEvent, command: Command): void {
    const { stats } = this;
    const taking = command.kind === "call" && command.request.kind === "forceRelease";
    if (taking && event.kind === "holdEnded") this.#takenNow.add(event.token);
    if (event.kind === "granted" && event.mode === "shared") stats.shared++;
    else if (event.kind === "granted" && event.mode === "semaphore") stats.semaphores++;
    else if (event.kind === "downgraded") stats.downgrades++;
    else if (event.kind === "leaseEnded" && event.hung) stats.hung++;
    else if (event.kind === "holdEnded" && event.end === "max_hold") stats.maxHolds++;
    else if (event.kind === "holdEnded" && event.end === "forced") stats.taken++;
  }

  #write(stream: SimStream, reply: Reply): void {
    stream.toClient.push(reply);
    if (reply.kind === "replaced") stream.serverOpen = false;
    if (reply.kind !== "outcome" || reply.seq !== 0) return;
    const { outcome } = reply;
    if (outcome.kind !== "welcome") {
      stream.serverOpen = false;
      return;
    }
    if (outcome.resumed) this.stats.resumes++;
    stream.serverSession = outcome.sessionId;
    // It broke before it was welcome.
    if (!stream.serverOpen) {
      const { core } = this.#server;
      this.#messages.push(() => {
        if (this.#server.core === core) this.#closeAtServer(stream);
      });
    }
  }

  /** The process is gone, or has dropped its core: all calls fail, all streams close. */
  #dropped(): void {
    this.#calls.clear();
    for (const stream of this.#streams) {
      stream.serverOpen = false;
      stream.toServer.length = 0;
    }
  }

  /** Who believes to hold does hold, in the core and on the disk; and all those who believe can do so together. */
  #checkBeliefs(): void {
    const state = this.#server.core?.inspect();
    const beliefs: Belief[] = [];
    for (const client of [...this.#sessions, ...this.#unaries]) {
      for (const belief of client.believed()) {
        const { name, token } = belief;
        if (this.#takenNow.has(token)) continue; // there only a fence helps
        beliefs.push(belief);
        ensure(this.#server.journal.has(`h/${token}`), () => `${name} is believed held by ${token}, the disk differs`);
        if (state === undefined) continue;
        const hold = state.holds.get(token);
        const held = hold !== undefined && hold.lock.name === name && hold.lease.dead === null;
        ensure(held, () => `${name} is believed held by ${token}, the server differs`);
      }
    }
    checkTogether(beliefs);
  }
}

/**
 * Causal sessions for any store whose writes carry Leasehold's Lamport timestamps. The position is the timestamp of the last
 * write; a replica is asked for the timestamp up to which it has applied everything.
 *
 * That "up to which" is a promise of the store's, and the whole of it. Timestamps of writers who do not wait for each other
 * do not arrive in their order:
 *
 *     writer a:  takes 7                      writes, late
 *     writer b:            takes 8, writes
 *     replica:                        8              7      <- between the two, "the highest is 8" is no proof of 7
 *
 * So `applied` must answer for what is written in the order of timestamps: by the holder of an exclusive lock, or by one
 * process, or through one log.
 */
import { invalid, show } from "../errors.js";
import { checkKeys } from "../token.js";
import type { CausalOptions } from "./options.js";
import { CausalSession } from "./session.js";
import { checkCausalOptions, Shared } from "./shared.js";
import type { Lent, Server, System } from "./system.js";

/** The Lamport clock of the process: `client.clock` of `@leasehold/client` is one. */
export interface LamportSource {
  now(): number;
  tick(): number;
  observe(timestamp: number): number;
}

export interface LamportReplica<D> {
  readonly db: D;
  /** The timestamp up to which all writes are applied there; 0: none is. */
  applied(): Promise<number>;
}

export interface LamportCausalOptions<D> extends CausalOptions {
  readonly clock: LamportSource;
  readonly primary: D;
  readonly replicas: readonly LamportReplica<D>[];
}

/**
 * How far a position that was received may be ahead of the clock and still move it with the next write: as far as
 * Leasehold's server follows. A forged one that is further ahead must not bring the clock to its end.
 */
const AHEAD_MAX = 1_000_000;
/** The last timestamp after which there is another one. */
const TIMESTAMP_MAX = Number.MAX_SAFE_INTEGER - 1;

const isTimestamp = (value: unknown): value is number =>
  typeof value === "number" && Number.isSafeInteger(value) && value >= 0 && value <= TIMESTAMP_MAX;

class LamportPrimary<D> implements Server<D, number> {
  readonly #db: D;

  constructor(db: D) {
    this.#db = db;
  }

  lend(): Promise<Lent<D>> {
    return Promise.resolve({ db: this.#db, release: () => {}, failed: () => Promise.resolve() });
  }

  /** What is written is written there. */
  look(): Promise<number> {
    return Promise.resolve(TIMESTAMP_MAX);
  }
}

class LamportServer<D> implements Server<D, number> {
  readonly #replica: LamportReplica<D>;

  constructor(replica: LamportReplica<D>) {
    this.#replica = replica;
  }

  lend(): Promise<Lent<D>> {
    return Promise.resolve({ db: this.#replica.db, release: () => {}, failed: () => Promise.resolve() });
  }

  async look(): Promise<number> {
    const applied = await this.#replica.applied();
    if (!isTimestamp(applied)) throw invalid(`applied() must give a Lamport timestamp, not ${show(applied)}`);
    return applied;
  }
}

class LamportSystem<D> implements System<D, number, number> {
  readonly kind = "lamport";
  readonly primary: LamportPrimary<D>;
  readonly replicas: readonly LamportServer<D>[];
  readonly clock: LamportSource;

  constructor({ clock, primary, replicas }: LamportCausalOptions<D>) {
    this.clock = clock;
    this.primary = new LamportPrimary(primary);
    this.replicas = replicas.map((replica) => new LamportServer(replica));
  }

  readonly encode = (position: number): string => `lamport:${position}`;

  readonly decode = (text: string): number | undefined => {
    const position = /^lamport:(0|[1-9]\d{0,15})$/.test(text) ? Number(text.slice("lamport:".length)) : undefined;
    return isTimestamp(position) ? position : undefined;
  };

  readonly later = (a: number, b: number): number => Math.max(a, b);

  readonly covers: System<D, number, number>["covers"] = (applied, position) =>
    applied >= position ? "applied" : "behind";

  readonly standby = (): boolean => false;
  readonly positionOf = (): undefined => undefined; // only a write of the session's own has a timestamp
  readonly supersedes = (): boolean => false;
}

/** The session of a user or a request. */
export class LamportSession<D> extends CausalSession<D, number, number> {
  readonly #lamport: LamportSystem<D>;

  /** Use `session()` of what `lamportCausal` returned. */
  constructor(shared: Shared<D, number, number>, lamport: LamportSystem<D>, position: string | undefined) {
    super(shared, position);
    this.#lamport = lamport;
  }

  /**
   * Runs `work` on the primary with the timestamp that it is to store along with what it writes: higher than all that this
   * process and this session have seen. Rejects with what `work` throws (the session then reads from the primary until its
   * next write), and INVALID when the position that was received is 1,000,000 ahead of the clock; nothing was written then.
   *
   * @example
   * await session.write((db, timestamp) => db.put("orders/42", { state: "paid", timestamp }));
   */
  async write<T>(work: (db: D, timestamp: number) => Promise<T>): Promise<T> {
    const timestamp = this.#next();
    const asked = this.asking();
    const { db } = await this.#lamport.primary.lend();
    try {
      const value = await work(db, timestamp);
      this.record(timestamp, asked);
      return value;
    } catch (error) {
      this.doubt();
      throw error;
    }
  }

  /** Takes note of a write that was made elsewhere with this timestamp. Throws INVALID if it is none. */
  noteWrite(timestamp: number): void {
    if (!isTimestamp(timestamp)) throw invalid(`${show(timestamp)} is no Lamport timestamp`);
    this.record(timestamp, this.asking());
  }

  /** Behind the session's position: else a replica that has the earlier write would seem to have this one, too. */
  #next(): number {
    const { clock } = this.#lamport;
    const { known } = this;
    if (known === undefined || known <= clock.now()) return clock.tick();
    if (known - clock.now() <= AHEAD_MAX) return clock.observe(known);
    throw invalid(`the position ${known} is further ahead of the clock (${clock.now()}) than ${AHEAD_MAX}`);
  }
}

/** Makes sessions. */
export interface LamportCausal<D> {
  /** `position`: the value of the header `Causal-Position`, or what another session's `position` was. Throws INVALID. */
  session(position?: string): LamportSession<D>;
}

/**
 * Reads from replicas of any store that never show less than what the session has written, if `applied` says the truth:
 * everything with a timestamp up to it is there. Throws INVALID.
 *
 * @example
 * const causal = lamportCausal({
 *   clock: client.clock,
 *   primary: store,
 *   replicas: [{ db: copy, applied: async () => (await copy.get("applied")).timestamp }],
 * });
 */
export function lamportCausal<D>(options: LamportCausalOptions<D>): LamportCausal<D> {
  checkCausalOptions(options, ["clock"]);
  const { clock, replicas } = options;
  for (const method of ["now", "tick", "observe"] as const) {
    if (typeof clock?.[method] !== "function") throw invalid("clock must be a Lamport clock, such as client.clock");
  }
  for (const replica of replicas) {
    checkKeys(replica, ["db", "applied"], "the properties of a replica");
    if (typeof replica.applied !== "function") throw invalid("each replica needs applied()");
  }
  const lamport = new LamportSystem(options);
  const shared = new Shared(lamport, options);
  return { session: (position) => new LamportSession(shared, lamport, position) };
}

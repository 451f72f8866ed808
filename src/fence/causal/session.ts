/**
 * Reading your own writes from replicas.
 *
 * Replicas lag behind. So a write may be followed by a read that does not see it:
 *
 *     client:   write to the primary     -> done
 *     client:   read from a replica      -> the old value: the write is still on its way there
 *
 * A session remembers the position of its last write in the primary's log, and a read asks the replica first whether it
 * has applied the log up to there. If not it waits, and goes to the primary when that takes too long. A position travels
 * in a header, so that a service which is called reads what its caller has written.
 *
 * - A position is taken after the commit. Before, it lies in front of the commit's own record, and a replica can have
 *   applied all up to it without the write.
 * - A position that cannot be had (the connection broke in the commit) is a doubt: until the next position is taken, the
 *   session reads from the primary.
 * - Positions are of one history. After a failover, or from another cluster, they cannot be compared with what a replica
 *   says. The session then reads from the primary, and goes on from the primary's position.
 * - A header may be forged. The worst that it does is that a read waits for its time, and goes to the primary.
 */
import { FenceError, invalid, show } from "../errors.js";
import { type HeaderCarrier, type ReceivedHeaders, readHeader, writeHeader } from "./carrier.js";
import { checkReadOptions, checkWaitMs, type ReadOptions, type ReadReason, type ReadReport } from "./options.js";
import { type Refusal, type Replica, within } from "./replica.js";
import type { Shared } from "./shared.js";
import type { Lent, System } from "./system.js";

/** Far more than the longest position; what is longer is no position. */
const HEADER_BYTES_MAX = 512;
const UNKNOWN = "unknown";
/** How often a replica is asked at once after it was said to have the position. */
const ASK_AGAIN_MAX = 8;

interface Place<D> {
  readonly lent: Lent<D>;
  readonly report: ReadReport;
}

/**
 * What a user or a request has written and may expect to read. Made by `session()`; cheap, and not to be shared by users
 * who do not wait for each other's writes. Its reads are not ordered among each other: two reads by two replicas may show
 * a third party's writes and then not, but never less than the session's own.
 */
export class CausalSession<D, S, P> {
  protected readonly system: System<D, S, P>;
  readonly #shared: Shared<D, S, P>;
  #position: P | undefined;
  /** How often there was a doubt, and how many of them the position is known to be behind of. */
  #doubts = 0;
  #settled = 0;
  #lastRead: ReadReport | undefined;

  /** Use `session()` of what `postgresCausal`, `redisCausal` or `lamportCausal` returned. */
  constructor(shared: Shared<D, S, P>, position: string | undefined) {
    this.#shared = shared;
    this.system = shared.system;
    if (position !== undefined) this.merge(position);
  }

  /** What `Causal-Position` carries; undefined while nothing was written or received. */
  get position(): string | undefined {
    if (this.#doubtful) return `${this.system.kind}:${UNKNOWN}`;
    return this.#position === undefined ? undefined : this.system.encode(this.#position);
  }

  /** Where the last read was done. */
  get lastRead(): ReadReport | undefined {
    return this.#lastRead;
  }

  /**
   * Takes note of a position that came from elsewhere, as `position` or the header has it: the later of the two counts.
   * Throws INVALID if it is none of this kind of system.
   */
  merge(position: string): void {
    const { kind, decode, later } = this.system;
    if (position === `${kind}:${UNKNOWN}`) {
      this.doubt();
      return;
    }
    const other = typeof position === "string" && position.length <= HEADER_BYTES_MAX ? decode(position) : undefined;
    if (other === undefined) throw invalid(`${show(position)} is no position of the kind ${show(kind)}`);
    if (this.#position === undefined) this.#position = other;
    else {
      const last = later(this.#position, other);
      if (last === undefined) this.doubt();
      else this.#position = last;
    }
  }

  /** Puts the position into the header of a message to be sent, if there is one. Returns the headers. */
  inject<H extends HeaderCarrier>(headers: H): H {
    const { position } = this;
    return position === undefined ? headers : writeHeader(headers, this.#shared.header, position);
  }

  /** Merges the position in the header of a received message, if there is one. Throws INVALID if it is none. */
  extract(headers: ReceivedHeaders): void {
    const position = readHeader(headers, this.#shared.header, HEADER_BYTES_MAX);
    if (position !== undefined) this.merge(position);
  }

  /**
   * Runs `work` on a replica that has the session's position, or on the primary if none has it in time. `work` gets the
   * connection, and must not keep it. Rejects with what `work` or, on the primary, the driver throws; with the signal's
   * reason; INVALID; UNREACHABLE when what should be the primary is a replica that lacks the position.
   *
   * @example
   * const order = await session.read((db) => db.query("select * from orders where id = $1", [42]));
   */
  async read<T>(work: (db: D) => Promise<T>, options: ReadOptions = {}): Promise<T> {
    checkReadOptions(options);
    const waitMs = options.waitMs === undefined ? this.#shared.waitMs : checkWaitMs(options.waitMs);
    options.signal?.throwIfAborted();
    const { lent, report } = await this.#place(waitMs, options.signal);
    this.#lastRead = report;
    try {
      options.report?.(report);
      const value = await work(lent.db);
      lent.release();
      return value;
    } catch (error) {
      await lent.failed();
      throw error;
    }
  }

  /** From now on the session reads from the primary, until a position is taken that was asked for later than this. */
  protected doubt(): void {
    this.#doubts++;
  }

  /** To be called before a position is asked for; `record` then takes it. */
  protected asking(): number {
    return this.#doubts;
  }

  /** The position, whether there is a doubt or not. */
  protected get known(): P | undefined {
    return this.#position;
  }

  /** Takes note of the position of a write of the session's own. */
  protected record(position: P, asked: number): void {
    const known = this.#position;
    this.#position = known === undefined ? position : (this.system.later(known, position) ?? position);
    this.#settled = Math.max(this.#settled, asked);
  }

  get #doubtful(): boolean {
    return this.#settled < this.#doubts;
  }

  async #place(waitMs: number, signal: AbortSignal | undefined): Promise<Place<D>> {
    const beganMs = performance.now();
    const waited = () => performance.now() - beganMs;
    let why: ReadReason = "unknown";
    if (!this.#doubtful) {
      const found = await this.#onReplica(() => waitMs - waited(), signal);
      if (typeof found !== "string") {
        const { lent, replica } = found;
        why = this.#position === undefined ? "no_position" : "applied";
        const report: ReadReport = { on: "replica", replica: replica.index, why, waitedMs: waited(), covered: true };
        return { lent, report };
      }
      why = found;
    }
    const { lent, covered } = await this.#onPrimary(signal);
    return { lent, report: { on: "primary", replica: undefined, why, waitedMs: waited(), covered } };
  }

  /** Asks the replicas in turn, then waits for the first of those that are only behind. */
  async #onReplica(
    leftMs: () => number,
    signal: AbortSignal | undefined,
  ): Promise<{ lent: Lent<D>; replica: Replica<D, S, P> } | ReadReason> {
    const position = this.#position;
    const refusals = new Map<Replica<D, S, P>, Refusal>();
    let candidates = this.#shared.inTurn();
    let told = 0;
    while (candidates.length > 0) {
      for (const [i, replica] of candidates.entries()) {
        if (leftMs() <= 0) break;
        // One that does not answer must leave time for the others.
        const answer = await replica.lend(position, { ms: leftMs() / (candidates.length - i), signal });
        if (typeof answer !== "string") return { lent: answer, replica };
        refusals.set(replica, answer);
      }
      const behind = [...refusals].filter(([, refusal]) => refusal === "behind").map(([replica]) => replica);
      if (position === undefined || behind.length === 0 || leftMs() <= 0) break;
      const first = await this.#shared.firstToReach(position, behind, { ms: leftMs(), signal });
      if (first === undefined) break;
      // One of its servers has it, and the next connection may be to another one. If they take turns, asking as often each
      // time could meet the wrong one each time.
      told = Math.min(told + 1, ASK_AGAIN_MAX);
      candidates = Array.from({ length: told }, () => first);
    }
    const answers = new Set(refusals.values());
    if (answers.has("behind")) return "behind";
    return answers.has("other") ? "other_history" : "unreachable";
  }

  async #onPrimary(signal: AbortSignal | undefined): Promise<{ lent: Lent<D>; covered: boolean }> {
    const position = this.#position;
    const asked = this.asking();
    const doubtful = this.#doubtful;
    const { primary, covers, standby, supersedes, positionOf } = this.system;
    let lent: Lent<D> | undefined;
    let givenUp = false;
    const open = async (): Promise<{ lent: Lent<D>; covered: boolean }> => {
      lent = await primary.lend();
      if (givenUp || (position === undefined && !doubtful)) return { lent, covered: true };
      const state = await primary.look(lent.db);
      const covered = position === undefined || covers(state, position) === "applied";
      if (covered && !doubtful) return { lent, covered };
      if (standby(state)) {
        throw new FenceError("UNREACHABLE", "what was given as the primary is a replica, and lacks the position");
      }
      if (covered || position === undefined || supersedes(state, position)) {
        this.#goOnFrom(positionOf(state), position, asked);
      }
      return { lent, covered };
    };
    const opened = open().catch((error: unknown) => {
      lent?.release(true);
      throw error;
    });
    const giveUp = () => {
      givenUp = true;
      lent?.release(true);
      const late = () => lent?.release();
      opened.then(late, late);
    };
    const place = await within(opened, { ms: Number.POSITIVE_INFINITY, signal }, giveUp);
    return place as NonNullable<typeof place>; // no time limit: it has settled
  }

  /** In place of a position that means nothing to the primary, its own: all that is left of earlier writes is before it. */
  #goOnFrom(current: P | undefined, position: P | undefined, asked: number): void {
    if (current === undefined || this.#position !== position) return; // a write has moved it meanwhile
    this.#position = current;
    this.#settled = Math.max(this.#settled, asked);
  }
}

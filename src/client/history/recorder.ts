/** Stamps events and hands them on. */
import { randomBytes } from "node:crypto";
import { defaultOwner } from "../arguments.js";
import { LeaseholdError } from "../errors.js";
import type { Lock } from "../lock.js";
import type { LockSpec, ModeOptions } from "../options.js";
import type { HistoryEntry, HistoryEvent, HistoryLock } from "./event.js";

export interface RecordOptions {
  /** Who records; different for every client in every process. Default: "hostname/pid/random". */
  readonly process?: string | undefined;
  /**
   * Nanoseconds of a clock that all share whose histories are checked together. Default: the monotonic clock of this
   * machine.
   */
  readonly nowNs?: (() => number) | undefined;
}

type Failing = Extract<HistoryEntry, { readonly type: "fail" | "unknown" }>["op"];

/** After these it did not happen; after all others it may have. */
const CERTAIN: ReadonlySet<string> = new Set(["BUSY", "DEADLOCK", "INVALID", "LIMIT", "DENIED", "NOT_WAITING"]);

export class Recorder {
  readonly nowNs: () => number;
  readonly #take: (event: HistoryEvent) => void;
  readonly #process: string;
  #lastId = 0;

  constructor(take: (event: HistoryEvent) => void, options: RecordOptions) {
    this.#take = take;
    this.#process = options.process ?? `${defaultOwner()}/${randomBytes(4).toString("hex")}`;
    this.nowNs = options.nowNs ?? (() => Number(process.hrtime.bigint()));
  }

  nextId(): number {
    return ++this.#lastId;
  }

  write(id: number, entry: HistoryEntry, ns = this.nowNs()): void {
    this.#take({ process: this.#process, ns, id, ...entry });
  }

  call(op: Failing, entry: HistoryEntry): Call {
    const id = this.nextId();
    this.write(id, entry);
    return new Call(this, id, op);
  }

  acquire(specs: readonly LockSpec[]): Call {
    const locks = Array.isArray(specs) ? (specs as readonly LockSpec[]).map(lockOf) : [];
    return this.call("acquire", { op: "acquire", type: "invoke", locks });
  }
}

/** What is asked for, as far as it makes sense: it is the client who refuses what does not. */
function lockOf(spec: LockSpec): HistoryLock {
  const { name, mode, permits } = typeof spec === "string" ? ({ name: spec } as { name: string } & ModeOptions) : spec;
  if (!permits) return { name: String(name), mode: mode === "shared" ? "shared" : "exclusive" };
  return { name: String(name), mode: "semaphore", permits: count(permits.take), limit: count(permits.of) };
}

const count = (value: number | undefined): number =>
  value !== undefined && Number.isSafeInteger(value) && value > 0 ? value : 1;

/** An operation whose result is still to come. */
export class Call {
  readonly #recorder: Recorder;
  readonly #id: number;
  readonly #op: Failing;
  #done = false;

  constructor(recorder: Recorder, id: number, op: Failing) {
    this.#recorder = recorder;
    this.#id = id;
    this.#op = op;
  }

  /** Only the first result counts. */
  result(entry: HistoryEntry): void {
    if (this.#done) return;
    this.#done = true;
    this.#recorder.write(this.#id, entry);
  }

  failed(error: unknown): void {
    const code = LeaseholdError.is(error) ? error.code : error instanceof Error ? error.name : "";
    this.result({ op: this.#op, type: CERTAIN.has(code) ? "fail" : "unknown", error: code });
  }

  granted(locks: readonly Pick<Lock, "grant">[]): void {
    const grants = locks.map(({ grant: { token, timestamp, slots } }) =>
      slots.length > 0 ? { token, timestamp, slots } : { token, timestamp },
    );
    this.result({ op: "acquire", type: "ok", grants });
  }

  /** Records how it ends, and ends so. */
  async settle<T>(promise: Promise<T>, result: (value: T) => HistoryEntry): Promise<T> {
    try {
      const value = await promise;
      this.result(result(value));
      return value;
    } catch (error) {
      this.failed(error);
      throw error;
    }
  }
}

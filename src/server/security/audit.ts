/**
 * The audit log: one JSON line for every administrative act and every refusal of somebody, in a stream of its own.
 *
 * Nobody waits for it: what its reader does not take, or its disk does not, is dropped when a mebibyte waits, and the next
 * line says how many were. Whoever is refused may ask as fast as he pleases, so of the refusals of one principal, or of one
 * address that is not known, so many a minute are told, and then how many more there were.
 */
import { type Line, lineSink } from "../log.js";
import { AuditFile } from "./audit-file.js";

/** What happened. No value may be a secret. */
export interface AuditEvent {
  readonly event: "unauthenticated" | "denied" | "force_release" | "backup" | "log_level" | "policy_read";
  /** "": not known, or authentication is off. */
  readonly principal?: string;
  readonly address?: string;
  readonly requestId?: string;
  readonly [detail: string]: string | number | boolean | undefined;
}

/** Refusals of one principal, or one address, in a minute. */
const REFUSALS_PER_MINUTE_MAX = 60;
/** Principals and addresses that are told apart; the rest of them count as one. */
const COUNTED_MAX = 1_000;
const MINUTE_MS = 60_000;
const WAITING_BYTES_MAX = 1_048_576;
const OTHERS = "";

interface Counted {
  beganMs: number;
  told: number;
  leftOut: number;
}

/** Where lines go. Returns false for one that was dropped. */
export interface AuditSink {
  write(line: string): boolean;
  /** Somebody has moved the file away. */
  reopen(): void;
  /** How many lines were taken and could not be written, since this was asked last. */
  lost(): number;
  /** Writes what waits, if it can. */
  close(): Promise<void>;
}

export class AuditLog {
  readonly #sink: AuditSink | null;
  readonly #monotonicMs: () => number;
  readonly #wallMs: () => number;
  readonly #counted = new Map<string, Counted>();
  #dropped = 0;

  /** `sink`: null for no log. `monotonicMs` does not go back. */
  constructor(sink: AuditSink | null, monotonicMs: () => number, wallMs: () => number) {
    this.#sink = sink;
    this.#monotonicMs = monotonicMs;
    this.#wallMs = wallMs;
  }

  /** Told always. */
  act(event: AuditEvent): void {
    this.#write(event);
  }

  /** Told unless there are too many of this principal's, or of this address's. */
  refusal(event: AuditEvent): void {
    if (this.#sink === null) return;
    const counted = this.#countedFor(event.principal || hostOf(event.address ?? ""));
    if (counted.told >= REFUSALS_PER_MINUTE_MAX) {
      counted.leftOut++;
      return;
    }
    counted.told++;
    const { leftOut } = counted;
    counted.leftOut = 0;
    this.#write(leftOut === 0 ? event : { ...event, leftOutBefore: leftOut });
  }

  reopen(): void {
    this.#sink?.reopen();
  }

  async close(): Promise<void> {
    await this.#sink?.close();
  }

  #countedFor(who: string): Counted {
    const nowMs = this.#monotonicMs();
    let counted = this.#counted.get(who);
    if (counted === undefined && who !== OTHERS && this.#counted.size >= COUNTED_MAX) {
      this.#forgetOld(nowMs);
      if (this.#counted.size >= COUNTED_MAX) return this.#countedFor(OTHERS);
    }
    if (counted === undefined || nowMs - counted.beganMs >= MINUTE_MS) {
      counted = { beganMs: nowMs, told: 0, leftOut: counted?.leftOut ?? 0 };
      this.#counted.set(who, counted);
    }
    return counted;
  }

  #forgetOld(nowMs: number): void {
    for (const [who, { beganMs }] of this.#counted) if (nowMs - beganMs >= MINUTE_MS) this.#counted.delete(who);
  }

  #write(event: AuditEvent): void {
    if (this.#sink === null) return;
    this.#dropped += this.#sink.lost();
    const dropped = this.#dropped === 0 ? {} : { droppedBefore: this.#dropped };
    const line = { time: new Date(this.#wallMs()).toISOString(), ...event, ...dropped };
    if (this.#sink.write(`${JSON.stringify(line)}\n`)) this.#dropped = 0;
    else this.#dropped++;
  }
}

/** "127.0.0.1:4711" and "[::1]:4711" without the port, which is another one each time. */
const hostOf = (address: string): string => address.replace(/:\d+$/, "");

/**
 * `to`: a file, "stderr" or "none". `onError`: it could not be written, and why; said once until it works again. Throws an
 * `UnusableFileError`.
 */
export function openAudit(to: string, onError: (error: unknown) => void): AuditSink | null {
  if (to === "none") return null;
  if (to === "stderr") return new StreamSink();
  return new AuditFile(to, WAITING_BYTES_MAX, onError);
}

/** Standard error; taken over when there is something to tell. */
class StreamSink implements AuditSink {
  #lines: Line | null = null;

  write(line: string): boolean {
    this.#lines ??= lineSink(2, WAITING_BYTES_MAX);
    return this.#lines.write(line);
  }

  reopen(): void {}

  lost(): number {
    return 0;
  }

  async close(): Promise<void> {}
}

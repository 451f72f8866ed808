/**
 * From the entries of a backup to those with which a restored store begins.
 *
 * What has been granted, renewed, released and cancelled since the backup is in nobody's memory but the clients'. So
 * nothing of the backup is put back that somebody could act on. No lease: it may have died since, and to find it alive
 * again would let its holder believe anew in a lock that somebody else has been granted. With the leases go their
 * holds, their places in queues, and the sessions: whoever comes back is told that what it had is lost.
 *
 * What is put back only ever refuses something: the counters, put so far ahead that they are above everything that was
 * handed out since; request ids that are over, those of the lost holds among them; lock delays, those of the lost
 * holds among them. And nothing is granted for a while, because those who were granted something before the restore may
 * believe in it for that long, and nobody knows who they are.
 */
import { HEADER_KEY, type HeaderRecord, type HoldRecord, type LeaseRecord, QUIET_KEY } from "./records.js";
import { requestKey } from "./state.js";

/** What a backup holds, for people. */
export interface BackupContents {
  readonly leases: number;
  /** Locks that are held. */
  readonly locks: number;
  readonly holds: number;
  readonly waiters: number;
  readonly sessions: number;
  readonly lastToken: number;
  /** No timestamp above it was handed out. */
  readonly timestamp: number;
  readonly incarnation: number;
}

export interface RestorePlan {
  /** How far above the last token of the backup the restored store begins to count. */
  readonly advanceTokens: number;
  /** For how long nothing is granted. 0: no client believes in anything. */
  readonly quietMs: number;
}

/**
 * Timestamps and tickets are handed out more often than tokens, so they are advanced this much further. Should it not be
 * enough, a client that has observed a higher timestamp moves the clock, and tickets only have to be new.
 */
const ADVANCE_OTHERS = 10;
/** What has to be left of the range of tokens and timestamps. */
const ROOM_MIN = 2 ** 50;

/** A hold that is lost, as far as it has to be known. */
interface LostHold {
  readonly token: number;
  readonly name: string;
  readonly leaseId: string;
  readonly requestId: string;
  readonly lockDelayMs: number;
}

/** Takes the entries of a backup in, in any order. */
export class Restoration {
  #header: HeaderRecord | undefined;
  readonly #kept: [string, string][] = [];
  readonly #lost: LostHold[] = [];
  readonly #leases = new Map<string, { readonly own: boolean; readonly principal: string }>();
  readonly #locks = new Set<string>();
  readonly #counts = { l: 0, h: 0, t: 0, s: 0 };

  /** Throws for an entry that no core has written. */
  read(key: string, value: string): void {
    if (key === HEADER_KEY) {
      this.#header = JSON.parse(value) as HeaderRecord;
      return;
    }
    const kind = key.slice(0, 2);
    const name = key.slice(2);
    switch (kind) {
      case "d/":
      case "q/":
        this.#kept.push([key, value]);
        break;
      case "l/":
        this.#counts.l++;
        this.#readLease(name, JSON.parse(value) as LeaseRecord);
        break;
      case "h/":
        this.#counts.h++;
        this.#readHold(Number(name), JSON.parse(value) as HoldRecord);
        break;
      case "t/":
        this.#counts.t++;
        break;
      case "s/":
        this.#counts.s++;
        break;
      case "i/":
      case "r/":
        break;
      default:
        throw new Error(`the backup has an entry of an unknown kind: ${key}`);
    }
  }

  get contents(): BackupContents {
    const [lastToken, timestamp, , incarnation] = this.#header ?? [0, 0, 0, 0];
    const { l: leases, h: holds, t: waiters, s: sessions } = this.#counts;
    return { leases, locks: this.#locks.size, holds, waiters, sessions, lastToken, timestamp, incarnation };
  }

  /** Null, or why so far an advance would leave too few tokens or timestamps: the largest that is permitted. */
  get advanceTokensMax(): number {
    const [token, ceiling, serial] = this.#header ?? [0, 0, 0];
    const room = Number.MAX_SAFE_INTEGER - ROOM_MIN;
    const others = Math.floor((room - Math.max(ceiling, serial)) / ADVANCE_OTHERS);
    return Math.max(0, Math.min(room - token, others));
  }

  /** The entries of the restored store. */
  entries({ advanceTokens, quietMs }: RestorePlan): [key: string, value: string][] {
    const [token, ceiling, serial, incarnation, servedMs] = this.#header ?? [0, 0, 0, 0, 0];
    const others = advanceTokens * ADVANCE_OTHERS;
    const header: HeaderRecord = [token + advanceTokens, ceiling + others, serial + others, incarnation, servedMs];
    const entries = new Map(this.#kept);
    for (const hold of this.#lost) {
      const { name, leaseId, requestId, lockDelayMs } = hold;
      if (requestId !== "") {
        const { own = false, principal = "" } = this.#leases.get(leaseId) ?? {};
        const key = requestKey(own ? "" : leaseId, principal, requestId);
        entries.set(`q/${key}`, JSON.stringify(["ended", hold.token]));
      }
      if (lockDelayMs > 0) delay(entries, name, servedMs + quietMs + lockDelayMs);
    }
    entries.set(HEADER_KEY, JSON.stringify(header));
    if (quietMs > 0) entries.set(QUIET_KEY, JSON.stringify([servedMs + quietMs]));
    return [...entries];
  }

  #readLease(id: string, [, , , , , , own, , , more]: LeaseRecord): void {
    this.#leases.set(id, { own: own === 1, principal: more?.[3] ?? "" });
  }

  #readHold(token: number, [name, leaseId, , requestId, , , , , more]: HoldRecord): void {
    this.#locks.add(name);
    const lockDelayMs = more?.[4] ?? 0;
    if (requestId !== "" || lockDelayMs > 0) this.#lost.push({ token, name, leaseId, requestId, lockDelayMs });
  }
}

/** Bars a lock at least until then. */
function delay(entries: Map<string, string>, name: string, untilServedMs: number): void {
  const key = `d/${name}`;
  const before = entries.get(key);
  const untilMs = before === undefined ? 0 : (JSON.parse(before) as [number])[0];
  entries.set(key, JSON.stringify([Math.max(untilMs, untilServedMs)]));
}

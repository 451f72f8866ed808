/**
 * Whether a floor is likely to survive: on the replicas, and not to be evicted.
 *
 * Redis acknowledges a write before its replicas have it. A primary that dies then takes the floor with it:
 *
 *     holder 2 (token 34) raises the floor; the primary answers, and dies before a replica has the floor
 *     a replica takes over: the floor is still 33
 *     holder 1 (token 33) wakes and writes    <- let through
 *
 * So a raise waits until replicas have acknowledged it. The answer of WAIT alone does not tell that: it counts replicas
 * which have what was written before the last command of *its own connection*. In a pool that is another connection, whose
 * last command was long ago, and after a reconnection, of which a driver says nothing, it may be another server. Therefore:
 *
 *     the raise and INFO, one script      -> how far the primary's stream has come with the raise in it: the mark
 *     WAIT, a few milliseconds at a time  -> replicas are asked to say how far they are; without it they do once a second
 *     INFO                                -> how far each replica has said that it is: enough of them at the mark?
 *
 * A WAIT blocks all that comes after it on its connection, so it is short, and between two there is room for others.
 *
 * It is best effort nevertheless: what is acknowledged is in the replica's memory, and a replica that was not asked for
 * may be the one that takes over.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { FenceError, invalid, show } from "../errors.js";

const WAIT_SLICE_MS = 10;
const PAUSE_MS_MAX = 50;

/** Of INFO replication. */
export interface Replication {
  readonly primary: boolean;
  /** Which history of writes the offsets belong to. A server that takes over begins a new one. */
  readonly history: string;
  readonly offset: number;
  /** How far each replica has said that it is; 0: it has said nothing, as while it is sent its first copy. */
  readonly replicas: readonly number[];
}

function parseInfo(info: string): Map<string, string> {
  const fields = new Map<string, string>();
  for (const line of info.split("\r\n")) {
    const colon = line.indexOf(":");
    if (colon > 0) fields.set(line.slice(0, colon), line.slice(colon + 1));
  }
  return fields;
}

/** Throws INVALID for what cannot be read: an unknown number of replicas must not count as none. */
export function parseReplication(info: string): Replication {
  const fields = parseInfo(info);
  const replicas: number[] = [];
  for (const [name, value] of fields) {
    if (!/^slave\d+$/.test(name)) continue;
    const replica = new Map(value.split(",").map((part) => part.split("=", 2) as [string, string]));
    replicas.push(Number(replica.get("offset") ?? 0));
  }
  const role = fields.get("role");
  const history = fields.get("master_replid");
  const offset = Number(fields.get("master_repl_offset"));
  if (role === undefined || history === undefined || !Number.isSafeInteger(offset)) {
    throw invalid(`INFO replication of this server has no role, master_replid or master_repl_offset: ${show(info)}`);
  }
  return { primary: role === "master", history, offset, replicas };
}

/** Throws INVALID when this server, as INFO memory tells, may evict keys that have no time limit. */
export function checkEviction(info: string): void {
  const fields = parseInfo(info);
  const policy = fields.get("maxmemory_policy");
  const limit = fields.get("maxmemory");
  if (policy === undefined || limit === undefined) {
    throw invalid(`INFO memory of this server has no maxmemory or maxmemory_policy: ${show(info)}`);
  }
  if (limit === "0" || !policy.startsWith("allkeys-")) return;
  throw invalid(
    `this Redis evicts any key when its memory is full (maxmemory-policy ${policy}), floors too, and lets stale holders ` +
      `in then: set noeviction or a volatile- policy, or accept it by the option eviction: "accept"`,
  );
}

export interface ReplicaWait {
  /**
   * How many replicas; undefined: all that are connected. Also those that are being sent their first copy: it may be from
   * before the raise, and the primary notices late that it has arrived. Such a replica can take over at once.
   */
  readonly wanted: number | undefined;
  readonly timeoutMs: number;
  replication(): Promise<Replication>;
  /** WAIT. */
  hurry(replicas: number, timeoutMs: number): Promise<unknown>;
  /** For messages. */
  readonly resource: string;
  readonly token: number;
}

/** Resolves when the replicas have what the primary had at `mark`. Rejects UNREACHABLE. */
export async function replicated(mark: Replication, wait: ReplicaWait): Promise<void> {
  const { timeoutMs, resource, token } = wait;
  const wanted = wait.wanted ?? mark.replicas.length;
  const deadlineMs = performance.now() + timeoutMs;
  const unreachable = (why: string) =>
    new FenceError("UNREACHABLE", `floor not on replicas: the token ${token} of ${show(resource)}: ${why}`, {
      resource,
      token,
    });
  for (let now = mark, pauseMs = 1; ; pauseMs = Math.min(2 * pauseMs, PAUSE_MS_MAX)) {
    if (!now.primary || now.history !== mark.history) {
      throw unreachable("another server has become the primary, or its history has begun anew");
    }
    const have = now.replicas.filter((offset) => offset > 0 && offset >= mark.offset).length;
    if (have >= wanted) return;
    const leftMs = deadlineMs - performance.now();
    if (leftMs <= 0) throw unreachable(`${have} of ${wanted} have acknowledged it within ${timeoutMs} ms`);
    if (now !== mark) await sleep(Math.min(pauseMs, leftMs));
    await wait.hurry(wanted, Math.ceil(Math.min(WAIT_SLICE_MS, leftMs)));
    now = await wait.replication();
  }
}

/** Taking a lock for an application: within the sidecar's limit, and only for as long as somebody waits for the answer. */
import type { AcquireOptions, Client, Duration, Lease, Lock } from "@leasehold/client";
import type { Hold, Holds } from "../holds.js";
import { badRequest, HttpProblem } from "../http/problem.js";
import type { Link } from "../link.js";
import type { AcquireBody } from "./schemas.js";

export interface TakingOptions {
  readonly link: Link;
  readonly holds: Holds;
  /** Of the lease that locks share. */
  readonly ttlMs: number;
  /** Whether the sidecar is stopping. */
  readonly draining: () => boolean;
}

export type TakeInput = Omit<AcquireBody, "requestId">;

const UNIT_MS: Readonly<Record<string, number>> = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000 };

/** The schema has checked its form. */
export function milliseconds(duration: number | string): number {
  if (typeof duration === "number") return duration;
  const [, digits, unit = "ms"] = /^([\d.]+)([a-z]+)$/.exec(duration) ?? [];
  return Math.round(Number(digits) * (UNIT_MS[unit] ?? 1));
}

export class Taking {
  readonly #options: TakingOptions;

  constructor(options: TakingOptions) {
    this.#options = options;
  }

  /**
   * Takes a lock. Without `heartbeat` and `maxHold` it is tied to the connection. Rejects as the client's `acquire`, LIMIT,
   * and with the reason of the signal, whose abort withdraws the request.
   */
  async take(name: string, input: TakeInput, streamed: boolean, signal: AbortSignal): Promise<Hold> {
    const { link, holds, draining } = this.#options;
    if (draining()) {
      const headers = { "retry-after": "1" };
      throw new HttpProblem(503, "CLOSED", "the sidecar is stopping", { retryable: true, headers });
    }
    const { client } = link;
    const request = this.#requestOf(name, input);
    const done = holds.reserve();
    try {
      signal.throwIfAborted();
      return await this.#take(client, request, streamed, signal);
    } catch (error) {
      link.judge(error);
      throw error;
    } finally {
      done();
    }
  }

  #requestOf(name: string, input: TakeInput): Request {
    const { mode, permits, take, wait = 0, ttl, heartbeat, holding, maxHold, ...others } = input;
    if (permits !== undefined && mode !== undefined) throw badRequest("give either a mode or permits, not both");
    if (take !== undefined && permits === undefined)
      throw badRequest("take says how many of the permits; give permits");
    const ttlMs = ttl === undefined ? this.#options.ttlMs : milliseconds(ttl);
    const options: AcquireOptions = {
      ...(others as Pick<AcquireOptions, "owner" | "metadata" | "lockDelay">),
      wait: wait as Duration,
      ...(maxHold === undefined ? {} : { maxHold: maxHold as Duration }),
      ...(mode === undefined ? {} : { mode }),
      ...(permits === undefined ? {} : { permits: { of: permits, take } }),
      ...(ttl === undefined || heartbeat !== undefined ? {} : { ttl: ttlMs }),
      ...(holding === undefined ? {} : { holding: this.#locks(holding) }),
    };
    return { name, options, ttlMs, heartbeatMs: heartbeat === undefined ? 0 : milliseconds(heartbeat) };
  }

  #locks(ids: readonly string[]): Lock[] {
    return ids.map((id) => this.#options.holds.get(id).lock);
  }

  async #take(client: Client, request: Request, streamed: boolean, signal: AbortSignal): Promise<Hold> {
    const { name, options, ttlMs, heartbeatMs } = request;
    if (heartbeatMs === 0) {
      const lock = await client.acquire(name, { ...options, signal });
      return this.#options.holds.add(lock, { tie: streamed ? "connection" : "maxHold", ttlMs });
    }
    const { owner } = options;
    const lease = await client.lease({ ttl: ttlMs, progressEvery: heartbeatMs, ...(owner ? { owner } : {}) });
    try {
      const lock = await whileKeeping(lease, heartbeatMs, () => client.acquire(name, { ...options, lease, signal }));
      lock.progress(); // the application's time counts from the grant
      return this.#options.holds.add(lock, { tie: "heartbeat", ttlMs, lease, heartbeatMs });
    } catch (error) {
      await lease.revoke();
      throw error;
    }
  }
}

interface Request {
  readonly name: string;
  readonly options: AcquireOptions;
  readonly ttlMs: number;
  /** 0: none. */
  readonly heartbeatMs: number;
}

/** Who waits need not give signs of life: the connection over which it waits is one. */
async function whileKeeping<T>(lease: Lease, heartbeatMs: number, wait: () => Promise<T>): Promise<T> {
  const timer = setInterval(
    () => {
      if (lease.state.is === "held" || lease.state.is === "jeopardy") lease.progress();
    },
    Math.max(1, Math.floor(heartbeatMs / 3)),
  );
  try {
    return await wait();
  } finally {
    clearInterval(timer);
  }
}

/**
 * The sidecar's one client of the server. The sidecar starts before there is a server, answers 503 meanwhile, and goes on
 * when there is one: whoever starts the two need not know in which order.
 *
 * What no waiting mends ends the sidecar, so that whoever watches over it sees it: credentials that are refused, and a
 * server with another store than before, whose tokens say nothing about the old ones.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { type Client, LeaseholdError } from "@leasehold/client";
import type { Logger } from "../server/log.js";

/** Between two tries to reach a server for the first time; later the client itself reconnects. */
const RETRY_MS = 500;
/** How long a probe waits for a server that nobody has talked to for a while. */
const PROBE_MS = 1_000;

export type Connect = () => Promise<Client>;

export class Link {
  readonly #log: Logger;
  readonly #fatal: (error: LeaseholdError) => void;
  readonly #stop = new AbortController();
  readonly #connected: Promise<Client>;
  #client: Client | null = null;
  #state: string = "connecting";
  #why = "not connected yet";

  /** `fatal` is called once, with what no waiting mends. */
  constructor(connect: Connect, log: Logger, fatal: (error: LeaseholdError) => void) {
    this.#log = log;
    let failed = false;
    this.#fatal = (error) => {
      if (!failed) fatal(error);
      failed = true;
    };
    this.#connected = this.#connect(connect);
    this.#connected.catch(() => {}); // told by `fatal`, or wanted by `close`
  }

  /** Resolves when a server has answered for the first time. */
  get connected(): Promise<Client> {
    return this.#connected;
  }

  /** Throws UNREACHABLE when no server has answered yet. */
  get client(): Client {
    if (this.#client) return this.#client;
    throw new LeaseholdError("UNREACHABLE", `the sidecar has not reached a server yet: ${this.#why}`);
  }

  /** Whether a server has answered yet. */
  get reached(): boolean {
    return this.#client !== null;
  }

  /** Whether the connection stands, as far as is known without asking. */
  get state(): string {
    return this.#state;
  }

  /** Null: a server answers. Else why not. */
  async unready(): Promise<string | null> {
    if (this.#client === null) return this.#why;
    if (this.#state === "connected") return null;
    if (this.#state !== "idle") return "the server cannot be reached";
    // An idle client has given its connection up. Asking opens it again; a timestamp is what no policy keeps from anybody.
    const late = new AbortController();
    try {
      const answered = this.#client.clock.range(1).then(() => null, String);
      return await Promise.race([answered, sleep(PROBE_MS, "the server does not answer", { signal: late.signal })]);
    } finally {
      late.abort();
    }
  }

  /** Looks whether an error is one that no waiting mends. */
  judge(error: unknown): void {
    if (LeaseholdError.is(error) && error.reason === "CLUSTER_MISMATCH") this.#fatal(error);
  }

  fail(error: LeaseholdError): void {
    this.#fatal(error);
  }

  async close(timeoutMs: number): Promise<void> {
    this.#stop.abort();
    await this.#client?.close({ timeout: timeoutMs });
  }

  async #connect(connect: Connect): Promise<Client> {
    for (;;) {
      try {
        const client = await connect();
        if (this.#stop.signal.aborted) {
          await client.close({ timeout: 0 });
          throw this.#stop.signal.reason;
        }
        return this.#adopt(client);
      } catch (error) {
        if (this.#stop.signal.aborted) throw error;
        const failure = LeaseholdError.from(error);
        if (!failure.retryable) {
          this.#fatal(failure);
          throw failure;
        }
        if (failure.message !== this.#why) this.#log.warn({ code: failure.code }, failure.message);
        this.#why = failure.message;
        await sleep(RETRY_MS, undefined, { signal: this.#stop.signal });
      }
    }
  }

  #adopt(client: Client): Client {
    this.#client = client;
    this.#state = "connected";
    client.on("state", (state) => {
      this.#state = state;
      this.#log.debug({ connection: state }, "connection");
    });
    client.on("warning", (warning) => {
      this.#log.warn({ code: warning.code }, warning.message);
      this.judge(warning);
    });
    this.#log.info("connected");
    return client;
  }
}

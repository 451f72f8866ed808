/**
 * `--elect`: who leads, for everybody who asks, and the commands that run at the beginning and the end of a term.
 *
 * The commands of one election never overlap: the one for the beginning is ended when the lead is lost, the one for the
 * end runs after that, and the next candidacy begins when it has ended. When the sidecar stops, it runs before the lead is
 * given up, so that the next leader begins after it.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { type Leader, type Leadership, LeaseholdError } from "@leasehold/client";
import type { Logger } from "../../server/log.js";
import type { Link } from "../link.js";
import { type Keeper, over } from "./keeper.js";

const RETRY_MS = 1_000;
/** Who may stand for election need not be permitted to see who leads; a policy may be changed. */
const DENIED_RETRY_MS = 60_000;

/** The commands. Neither rejects. */
export interface Hooks {
  /** Runs a command while the term lasts. Resolves when it has ended, by itself or because the signal was aborted. */
  elected(term: Leadership, signal: AbortSignal): Promise<void>;
  /** Runs a command after a term, and resolves when it has ended. */
  lost(term: Leadership): Promise<void>;
}

export interface LeaderView {
  readonly name: string;
  readonly isLeader: boolean;
  readonly token: number | null;
  readonly since: string | null;
  readonly leader: { readonly token: number; readonly owner: string; readonly value: string } | null;
}

export class Election {
  readonly #keeper: Keeper;
  readonly #link: Link;
  readonly #log: Logger;
  readonly #stop = new AbortController();
  #since: string | null = null;
  #leader: Leader | null = null;

  constructor(keeper: Keeper, link: Link, log: Logger, hooks: Hooks) {
    this.#keeper = keeper;
    this.#link = link;
    this.#log = log;
    keeper.add(async (term, signal) => {
      this.#since = new Date().toISOString();
      await hooks.elected(term, signal);
      await over(signal);
      await hooks.lost(term);
    });
    void this.#observe();
  }

  get leads(): boolean {
    return this.#keeper.term !== null;
  }

  view(): LeaderView {
    const { name, term } = this.#keeper;
    const leader = this.#leader;
    return {
      name,
      isLeader: term !== null,
      token: term?.grant.token ?? null,
      since: term === null ? null : this.#since,
      leader: leader && { token: leader.token, owner: leader.owner, value: leader.valueText },
    };
  }

  stop(): void {
    this.#stop.abort();
  }

  async #observe(): Promise<void> {
    const { signal } = this.#stop;
    while (!signal.aborted) {
      let retryMs = RETRY_MS;
      try {
        const client = await this.#link.connected;
        for await (const leader of client.observe(this.#keeper.name, { signal })) this.#leader = leader;
      } catch (error) {
        if (signal.aborted) return;
        this.#link.judge(error);
        const isDenied = LeaseholdError.is(error, "DENIED");
        if (isDenied) retryMs = DENIED_RETRY_MS;
        this.#log[isDenied ? "warn" : "debug"]({ err: error }, "who leads is not known");
      }
      await sleep(retryMs, undefined, { signal }).catch(() => {});
    }
  }
}

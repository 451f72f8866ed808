/** Standing for election: waiting for an exclusive lock, for as long as it takes. */
import type { Client } from "../api.js";
import { checkMetadata } from "../arguments.js";
import type { Duration } from "../duration.js";
import { durationMs } from "../duration.js";
import { invalid, LeaseholdError } from "../errors.js";
import type { Lock } from "../lock.js";
import type { AcquireOptions } from "../options.js";

/** Options of `campaign`; those that are not told of here are as for `acquire`. */
export interface CampaignOptions extends Omit<AcquireOptions, "metadata" | "mode" | "permits"> {
  /** What the leader proclaims from the first moment on, such as its address: text or bytes, at most 4 KiB. */
  readonly value?: string | Uint8Array | undefined;
  /** How long to stand; 0 tries once. Default: for ever, also while no server can be reached. */
  readonly wait?: Duration | undefined;
}

/**
 * Options of `lead`; those that are not told of here are as for `campaign`. With a `lease`, its end is that of `lead`,
 * which then rejects LOST.
 */
export interface LeadOptions extends Omit<CampaignOptions, "wait"> {
  /** Aborting it ends the candidacy, or asks the leader to come to an end: then `lead` resolves. */
  readonly signal?: AbortSignal | undefined;
}

/** The longest wait that servers permit by default; for ever is several of them. */
const WAIT_MS_MAX = 24 * 3_600_000;
/** What an election decides by itself. */
const FIXED = ["metadata", "mode", "permits"];

/** The acquire that a campaign amounts to. Throws INVALID. */
export function acquireOptions(options: CampaignOptions): AcquireOptions {
  if (typeof options !== "object" || options === null) throw invalid("the options of a campaign must be an object");
  const wrong = FIXED.find((key) => key in options);
  if (wrong) throw invalid(`the options of a campaign have no "${wrong}"`);
  const { value, wait, ...rest } = options;
  const waitMs = wait === undefined ? WAIT_MS_MAX : durationMs(wait, "the wait");
  return { ...rest, wait: waitMs, ...(value === undefined ? {} : { metadata: checkMetadata(value) }) };
}

/** Rejects as `acquire` does; BUSY only if there is an end of the wait. */
export async function campaign(client: Client, name: string, options: CampaignOptions): Promise<Lock> {
  const acquire = acquireOptions(options);
  for (;;) {
    try {
      return await client.acquire(name, acquire);
    } catch (error) {
      if (options.wait !== undefined || !LeaseholdError.is(error, "BUSY")) throw error;
    }
  }
}

/** Which bounds of the whole server are told to operators. Bounds of one lock, lease or session are not among them. */
import type { Limits } from "../config/limits.js";
import type { Counts } from "../core/types.js";
import type { LimitUse } from "./diagnosis.js";

/** How much there is now. `counts`: null while the state is recovered. */
export interface Uses {
  readonly counts: Counts | null;
  readonly streams: number;
  readonly calls: number;
  readonly watchers: number;
  readonly commandsInFlight: number;
}

/** What may be none at all (a limit of zero) is left out: there is nothing to use up. */
export function limitUses(limits: Limits, uses: Uses): LimitUse[] {
  const { counts } = uses;
  const all: LimitUse[] = [];
  const add = (option: keyof Limits, used: number) => {
    const max = limits[option];
    if (max > 0) all.push({ limit: `limits.${option}`, used, max });
  };
  if (counts !== null) {
    add("leasesMax", counts.leases);
    add("locksMax", counts.locks);
    add("sessionsMax", counts.sessions);
    add("requestsRememberedMax", counts.requestsRemembered);
  }
  add("streamsMax", uses.streams);
  add("callsMax", uses.calls);
  add("watchersMax", uses.watchers);
  add("commandsInFlightMax", uses.commandsInFlight);
  return all;
}

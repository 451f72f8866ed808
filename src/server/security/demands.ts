/** What a request asks of a policy. To whom leases belong is not asked here: the core refuses who may not use one. */
import type { Request } from "../core/types.js";
import type { Demand, Verb } from "./access.js";

const named = (verb: Verb, name: string): readonly Demand[] => [{ verb, name, prefix: false }];
const below = (verb: Verb, name: string): readonly Demand[] => [{ verb, name, prefix: true }];
const NOTHING: readonly Demand[] = [];

/** What concerns no lock by name: to be permitted, somebody must be permitted it for all. */
export const ADMINISTRATION: Demand = { verb: "admin", name: "", prefix: true };

export function demandsOf(request: Request): readonly Demand[] {
  switch (request.kind) {
    case "acquire":
      return request.items.length === 1
        ? named("acquire", request.items[0]?.name ?? "")
        : request.items.flatMap(({ name }) => named("acquire", name));
    case "forceRelease":
      return named("admin", request.name);
    case "describeLock":
      return named("observe", request.name);
    case "validate":
      // A holder may look after its own lock, a storage after all.
      return [{ verb: "observe", or: "acquire", name: request.name, prefix: false }];
    case "listLocks":
      return below("observe", request.prefix);
    case "listLeases":
    case "topLocks":
      return below("observe", "");
    case "createLease":
    case "renewLease":
    case "revokeLease":
    case "getLease":
    case "cancelAcquire":
    case "release":
    case "transfer":
    case "downgrade":
    case "setMetadata":
      return NOTHING; // its owner may, and nobody else
    case "tick":
    case "status":
      return NOTHING; // whoever is known may
  }
}

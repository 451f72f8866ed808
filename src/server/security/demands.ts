/** What a request asks of a policy. To whom leases belong is not asked here: the core refuses who may not use one. */
import type { Request } from "../core/types.js";
import type { Demand, Verb } from "./access.js";

const named = (verb: Verb, name: string): readonly Demand[] => [{ verb, name, prefix: false }];
const below = (verb: Verb, name: string): readonly Demand[] => [{ verb, name, prefix: true }];

export function demandsOf(request: Request): readonly Demand[] {
  switch (request.kind) {
    case "acquire":
      return request.items.flatMap(({ name }) => named("acquire", name));
    case "forceRelease":
      return named("admin", request.name);
    case "describeLock":
    case "validate":
      return named("observe", request.name);
    case "listLocks":
      return below("observe", request.prefix);
    case "listLeases":
    case "topLocks":
      return below("observe", "");
    default:
      return [];
  }
}

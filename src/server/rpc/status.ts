/** AdminService.Status: what the core counts, together with what the rest of the server knows. */
import type { leasehold } from "@leasehold/client/wire";
import type { Counts } from "../core/types.js";

/** What the composition root knows beside the core. */
export interface ServerStatus {
  readonly version: string;
  readonly clusterId: string;
  /** "level" or "memory". */
  readonly store: string;
  /** "" when the server serves; else why it does not. */
  readonly notServingReason: string;
  readonly uptimeMs: number;
  readonly commandsInFlight: number;
  readonly journalLogBytes: number;
  readonly journalCheckpointLagRecords: number;
}

export function statusBody(server: ServerStatus, counts: Counts): leasehold.v1.StatusResponse.$Properties {
  const { halted, ...numbers } = counts;
  return { ...serverBody(server, server.notServingReason || halted), ...numbers };
}

/** The core cannot answer, so the counts are left out. */
export function statusWithoutCore(server: ServerStatus, why: string): leasehold.v1.StatusResponse.$Properties {
  return serverBody(server, server.notServingReason || why);
}

function serverBody(server: ServerStatus, notServingReason: string): leasehold.v1.StatusResponse.$Properties {
  return {
    version: server.version,
    clusterId: server.clusterId,
    store: server.store,
    serving: notServingReason === "",
    notServingReason,
    uptimeMs: whole(server.uptimeMs),
    commandsInFlight: whole(server.commandsInFlight),
    journalLogBytes: whole(server.journalLogBytes),
    journalCheckpointLagRecords: whole(server.journalCheckpointLagRecords),
  };
}

/** The encoder writes a fraction or a negative number as something else, silently. */
function whole(value: number): number {
  return Number.isFinite(value) && value > 0 ? Math.floor(value) : 0;
}

import { type leasehold, v1 } from "@leasehold/client/wire";
import type { Command } from "commander";
import { clockRows, clockSkewForJson, clockSkewOf } from "./clock-view.js";
import { type Caller, type ConnectionOptions, connectionOptions, withServer } from "./common.js";
import { duration, json, list, plain, print, size } from "./output.js";

const method = {
  path: "/leasehold.v1.AdminService/Status",
  request: v1.StatusRequest,
  response: v1.StatusResponse,
} as const;

export const fetchStatus = (server: Caller): Promise<leasehold.v1.StatusResponse> => server.call(method, {});

export function registerStatus(program: Command): void {
  connectionOptions(program.command("status").description("tell how a server is")).action(
    async (options: ConnectionOptions) => {
      const text = await withServer(options, async (server) => {
        const status = await fetchStatus(server);
        return options.json ? json(forJson(status)) : describe(server.address, status);
      });
      print(text);
    },
  );
}

/** Field by field: a decoded message has what was not sent on its prototype. */
function forJson(status: leasehold.v1.StatusResponse) {
  const { version, clusterId, store, serving, notServingReason, uptimeMs, incarnation, lastToken, timestamp } = status;
  const { leases, locks, holds, waiters, sessions, commandsInFlight } = status;
  const { journalLogBytes, journalCheckpointLagRecords } = status;
  return {
    ...{ version, clusterId, store, serving, notServingReason, uptimeMs, incarnation, lastToken, timestamp },
    ...{ leases, locks, holds, waiters, sessions, commandsInFlight, journalLogBytes, journalCheckpointLagRecords },
    clockSkew: clockSkewForJson(clockSkewOf(status)),
  };
}

function describe(address: string, status: leasehold.v1.StatusResponse): string {
  const n = (value: number) => value.toLocaleString("en-US");
  return list([
    ["server", `${plain(status.version)} at ${address}, up for ${duration(status.uptimeMs)}`],
    ["serving", status.serving ? "yes" : `no: ${plain(status.notServingReason)}`],
    ["store", `${plain(status.store)}, cluster ${plain(status.clusterId)}, start ${n(status.incarnation)}`],
    ["locks", `${n(status.locks)} (${n(status.holds)} held, ${n(status.waiters)} waiting)`],
    ["leases", n(status.leases)],
    ["sessions", n(status.sessions)],
    ["last token", String(status.lastToken)],
    ["timestamp", String(status.timestamp)],
    ["in flight", `${n(status.commandsInFlight)} commands`],
    ["log", `${size(status.journalLogBytes)} in ${n(status.journalCheckpointLagRecords)} records since the checkpoint`],
    ...clockRows(clockSkewOf(status)),
  ]);
}

/** Carries a backup over one server-streaming gRPC call. */
import type { Access } from "../security/access.js";
import { BACKUP, type BackupEndpoint } from "./backup.js";
import type { WireFailure } from "./errors.js";
import { carryOutput, outputDefinition, type RawOutput } from "./grpc-output.js";

const BUFFERED_BYTES_MAX = 256 * 1024;
/** What is at the end has come a long way. */
const LAST_READ_MS_MAX = 60_000;

export const backupDefinition = outputDefinition(BACKUP);

/** `refusal`: why no backups are made at present, else null. */
export function carryBackup(
  endpoint: BackupEndpoint,
  access: Access,
  call: RawOutput,
  refusal: () => WireFailure | null,
  closeMsMax: number,
): void {
  const terms = {
    bufferedBytesMax: BUFFERED_BYTES_MAX,
    resumeBytes: BUFFERED_BYTES_MAX / 2,
    closeMsMax,
    lastReadMsMax: LAST_READ_MS_MAX,
  };
  carryOutput(call, access, refusal, terms, (pipe, failure, owner) =>
    endpoint.open(call.request, pipe, failure, owner),
  );
}

/** Carries a watch over one server-streaming gRPC call. */
import type { Access } from "../security/access.js";
import type { WireFailure } from "./errors.js";
import { carryOutput, outputDefinition, type RawOutput } from "./grpc-output.js";
import type { WatchEndpoint } from "./watch.js";

const BUFFERED_BYTES_MAX = 128 << 10;

export const watchDefinition = outputDefinition("/leasehold.v1.LockService/Watch");

/** `refusal`: why no watches are taken at present, else null. */
export function carryWatch(
  endpoint: WatchEndpoint,
  access: Access,
  call: RawOutput,
  refusal: () => WireFailure | null,
  closeMsMax: number,
): void {
  const terms = { bufferedBytesMax: BUFFERED_BYTES_MAX, resumeBytes: 0, closeMsMax, lastReadMsMax: closeMsMax };
  carryOutput(call, access, refusal, terms, (pipe, failure, { identity }) =>
    endpoint.open(call.request, pipe, failure, identity),
  );
}

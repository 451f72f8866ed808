/** Who calls: what a gRPC call tells of its peer, and whom access control takes that for. */
import type { PeerCertificate } from "node:tls";
import type { ServerDuplexStream, ServerUnaryCall, ServerWritableStream } from "@grpc/grpc-js";
import type { Refusal, Request } from "../core/types.js";
import { type Access, type Identity, isIdentity, nobody, type Peer } from "../security/access.js";
import { demandsOf } from "../security/demands.js";
import type { WireFailure } from "./errors.js";
import { connectionOf } from "./http2-stream.js";
import { requestIdFor } from "./request-id.js";

type AnyCall =
  | ServerUnaryCall<Buffer, Buffer>
  | ServerDuplexStream<Buffer, Buffer>
  | ServerWritableStream<Buffer, Buffer>;

/**
 * A connection's certificate does not change, and to read it takes some 50 µs: it is read once. Of
 * connections without one nothing is kept.
 */
const certificates = new WeakMap<object, PeerCertificate>();

function certificateOf(call: AnyCall): PeerCertificate | undefined {
  const connection = connectionOf(call);
  const known = connection && certificates.get(connection);
  if (known !== undefined) return known;
  const certificate = call.getAuthContext()?.sslPeerCertificate;
  if (connection !== undefined && certificate !== undefined) certificates.set(connection, certificate);
  return certificate;
}

/** What the transport knows of whoever calls. */
export function peerOf(call: AnyCall): Peer {
  return {
    authorization: call.metadata.get("authorization")[0]?.toString(),
    certificate: certificateOf(call),
    address: call.getPeer(),
    requestId: requestIdFor(call.metadata.get("x-request-id")[0]?.toString()),
  };
}

/**
 * Finds out who calls, and calls `then` with it, or with why it is nobody: at once where that is known at once. A call
 * that ends meanwhile is gone by then; `then` has to see for itself.
 */
export function identify(access: Access, peer: Peer, then: (who: Identity | WireFailure) => void): void {
  const answer = access.authenticate(peer);
  if (answer instanceof Promise) void answer.then(then);
  else then(answer);
}

/** Splits an answer in two. Whoever was refused is nobody, and may do nothing. */
export const admitted = (who: Identity | WireFailure): { identity: Identity; failure: WireFailure | null } =>
  isIdentity(who) ? { identity: who, failure: null } : { identity: nobody, failure: who };

/** Why this caller may not ask for this; null: it may. */
export function forbidden(identity: Identity, request: Request): Refusal | null {
  for (const demand of demandsOf(request)) {
    const refusal = identity.permits(demand);
    if (refusal !== null) return refusal;
  }
  return null;
}

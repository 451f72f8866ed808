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

/** Those by which somebody has called who is known. */
const knownConnections = new WeakSet<object>();

/** Whose a connection is, is known by the first call that comes by it. */
function isFirst(call: AnyCall): boolean {
  const connection = connectionOf(call);
  if (connection === undefined || knownConnections.has(connection)) return false;
  knownConnections.add(connection);
  return true;
}

/** Takes a call, or a stream, out of the quota of whoever makes it; when that is used up it is told so later. */
export function admit(
  who: Identity | WireFailure,
  call: AnyCall & { once(event: "cancelled", listener: () => void): unknown },
  then: (identity: Identity, failure: WireFailure | null) => void,
): void {
  if (!isIdentity(who)) {
    then(nobody, who); // and may do nothing
    return;
  }
  const failure = who.charge(1, isFirst(call) ? "connection" : "call");
  const holdMs = failure?.holdMs ?? 0;
  if (holdMs === 0) then(who, failure);
  else {
    const held = setTimeout(then, holdMs, who, failure).unref();
    call.once("cancelled", () => clearTimeout(held)); // what it has in memory does not wait
  }
}

/** Why this caller may not ask for this; null: it may. */
export function forbidden(identity: Identity, request: Request): Refusal | null {
  for (const demand of demandsOf(request)) {
    const refusal = identity.permits(demand);
    if (refusal !== null) return refusal;
  }
  return null;
}

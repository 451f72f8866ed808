/** Who asks on the ops port. */
import type { IncomingMessage } from "node:http";
import type { PeerCertificate, TLSSocket } from "node:tls";
import { requestIdFor } from "../rpc/request-id.js";
import type { Peer } from "../security/access.js";

export function peerOf(request: IncomingMessage): Peer {
  const { headers, socket } = request;
  const id = headers["x-request-id"];
  const address = socket.remoteAddress?.includes(":") ? `[${socket.remoteAddress}]` : socket.remoteAddress;
  return {
    authorization: headers.authorization,
    certificate: certificateOf(socket as Partial<TLSSocket>),
    address: address === undefined ? "unix" : `${address}:${socket.remotePort}`,
    requestId: requestIdFor(Array.isArray(id) ? id[0] : id),
  };
}

/** Only one that was verified: on this port the connection of one that was not is not ended. */
function certificateOf(socket: Partial<TLSSocket>): PeerCertificate | undefined {
  if (socket.authorized !== true) return undefined;
  const certificate = socket.getPeerCertificate?.();
  return certificate === undefined || Object.keys(certificate).length === 0 ? undefined : certificate;
}

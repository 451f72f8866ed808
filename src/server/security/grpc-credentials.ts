/** TLS for the gRPC port, with certificates that can be exchanged while it listens. */
import { ServerCredentials } from "@grpc/grpc-js";
import type { ServerConfig } from "../config/schema.js";
import type { Certificates } from "./certificates.js";

/** Somebody who connects and then says nothing is not waited for any longer. */
const HANDSHAKE_MS_MAX = 10_000;

/**
 * grpc-js listens to its credentials for new contexts, which serve the connections that are made from then on; but of
 * those that it makes itself, none lets a certificate be optional and its authorities be replaced.
 */
export class ReloadedCredentials extends ServerCredentials {
  constructor(certificates: Certificates, clientAuth: ServerConfig["tlsClientAuth"]) {
    const { context } = certificates.served;
    const requestCert = clientAuth !== "none";
    // Of a certificate that is optional and not trusted, grpc-js tells nothing: its owner is nobody.
    const rejectUnauthorized = clientAuth === "required";
    super({ requestCert, rejectUnauthorized, handshakeTimeout: HANDSHAKE_MS_MAX }, context);
    certificates.onChange((change) => this.updateSecureContextOptions(change.context));
  }

  override _equals(other: ServerCredentials): boolean {
    return other === this;
  }
}

/** What callers are told whose credentials are refused: whether they have run out, and nothing else about them. */
import type { WireFailure } from "../rpc/errors.js";

/** A refusal, and for metrics what kind it is. */
export interface AuthFailure extends WireFailure {
  readonly kind: "missing" | "malformed" | "unknown" | "expired";
}

const failure = (kind: AuthFailure["kind"], message: string): AuthFailure => ({
  reason: "UNAUTHENTICATED",
  message,
  retryAfterMs: 0,
  kind,
});

export const missing = failure(
  "missing",
  "this server wants to know who calls: a bearer token or a client certificate",
);
export const malformed = failure("malformed", "the authorization header is no bearer token");
export const unknownToken = failure("unknown", "the bearer token is not known");
export const expiredToken = failure("expired", "the bearer token has expired");
export const unknownCertificate = failure("unknown", "the client certificate has neither a URI nor a DNS name");
export const expiredCertificate = failure("expired", "the client certificate has expired");
export const withdrawn = failure("expired", "the credentials have expired or were withdrawn");

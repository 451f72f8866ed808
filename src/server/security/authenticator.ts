/**
 * Says who calls, by what was shown: a bearer token or a client certificate.
 *
 * What a caller is told about credentials that are refused is the same for every reason but that they have run out.
 */
import type { WireFailure } from "../rpc/errors.js";
import type { Peer } from "./access.js";

/** Whose credentials were accepted. */
export interface Authenticated {
  /** "token/NAME", "jwt/CLAIM", "cert/SAN". */
  readonly name: string;
  /** When the credentials run out, in ms since 1970 by this machine's clock; null: never. */
  readonly expiresAtMs: number | null;
}

export interface Authenticator {
  /** Says at once who it is, or later. Never rejects. */
  authenticate(peer: Peer): Authenticated | WireFailure | Promise<Authenticated | WireFailure>;
  /** Whether it would be accepted again now, for what is open; `who` is what `authenticate` returned. */
  stillValid(who: Authenticated): boolean;
  /** Calls back after each change of what is accepted. Returns how to stop listening. */
  onReload(listener: () => void): () => void;
}

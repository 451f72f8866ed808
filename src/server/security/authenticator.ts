/**
 * Says who calls, by what was shown: a bearer token or a client certificate.
 *
 * A bearer token goes before a certificate, and must then be good: whoever shows one means it. What a caller is told
 * about credentials that are refused is the same for every reason but that they have run out.
 */
import type { PeerCertificate } from "node:tls";
import type { WireFailure } from "../rpc/errors.js";
import type { Peer } from "./access.js";
import * as failures from "./failures.js";
import { certificateOwner } from "./identity.js";
import type { JsonWebTokens } from "./jwt.js";
import type { Tokens } from "./tokens.js";

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

/** What knows by itself whether it would be accepted again. */
export interface Verified extends Authenticated {
  stillValid(): boolean;
}

/** What is accepted. */
export interface Accepted {
  readonly tokens: Tokens | null;
  readonly jwts: JsonWebTokens | null;
  readonly certificates: boolean;
}

/** Longer than any token that makes sense; HTTP/2 bounds headers as well, more widely. */
const HEADER_LENGTH_MAX = 8_192;
const BEARER = /^Bearer +([A-Za-z0-9._~+/=-]+)$/i;
/** Three parts. Static tokens contain no dot. */
const JWT = /^[\w-]+\.[\w-]+\.[\w-]*$/;

export class CredentialAuthenticator implements Authenticator {
  readonly #accepted: Accepted;
  readonly #wallMs: () => number;
  readonly #listeners = new Set<() => void>();

  constructor(accepted: Accepted, wallMs: () => number) {
    this.#accepted = accepted;
    this.#wallMs = wallMs;
  }

  authenticate({ authorization, certificate }: Peer): ReturnType<Authenticator["authenticate"]> {
    if (authorization !== undefined) return this.#bearer(authorization);
    if (certificate !== undefined && this.#accepted.certificates) return this.#certificate(certificate);
    return failures.missing;
  }

  stillValid(who: Authenticated): boolean {
    return (who as Partial<Verified>).stillValid?.() ?? false;
  }

  onReload(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** What is accepted has changed. */
  reloaded(): void {
    for (const listener of [...this.#listeners]) listener();
  }

  #bearer(header: string): ReturnType<Authenticator["authenticate"]> {
    const [, token] = (header.length <= HEADER_LENGTH_MAX && BEARER.exec(header)) || [];
    if (token === undefined) return failures.malformed;
    const { tokens, jwts } = this.#accepted;
    if (jwts !== null && JWT.test(token)) return jwts.authenticate(token);
    return tokens === null ? failures.unknownToken : tokens.authenticate(token);
  }

  /** TLS has verified it against the authorities when the connection was made. */
  #certificate(certificate: PeerCertificate): Verified | WireFailure {
    const owner = certificateOwner(certificate);
    if (owner === null) return failures.unknownCertificate;
    const expiresAtMs = Date.parse(certificate.valid_to);
    const stillValid = () => expiresAtMs > this.#wallMs();
    return stillValid() ? { name: `cert/${owner}`, expiresAtMs, stillValid } : failures.expiredCertificate;
  }
}

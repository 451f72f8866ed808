/**
 * JSON Web Tokens as bearer tokens, verified with the public keys of a JWKS file.
 *
 * A token counts when one of those keys has signed it with an algorithm of the list below, for this issuer and this
 * audience, when it says until when, and when the present time lies between its "nbf", if any, and its "exp". That is
 * where a wall clock decides something: who may come in, never who holds a lock. A clock that is wrong locks callers out,
 * or lets credentials live on; it makes no lease longer, and no lock be granted twice.
 *
 * Nothing in a token chooses how it is verified: no key or address in its header is followed, and with symmetric
 * algorithms, or without a signature, it is refused.
 */
import { createHash } from "node:crypto";
import { calculateJwkThumbprint, createLocalJWKSet, decodeProtectedHeader, errors, type JWK, jwtVerify } from "jose";
import type { Verified } from "./authenticator.js";
import { type AuthFailure, expiredToken, unknownToken } from "./failures.js";
import { readBounded, UnusableFileError } from "./files.js";
import { isName } from "./identity.js";
import type { Reloadable } from "./reload.js";

const ALGORITHMS = [
  ...["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"],
  ...["ES256", "ES384", "ES512", "EdDSA", "Ed25519"],
];
/** How much the clocks of issuer and server may differ. */
const TOLERANCE_SECONDS = 30;
const FILE_BYTES_MAX = 1_048_576;
/** A token that names no key is tried with each of them. */
const KEYS_MAX = 20;
const VERIFIED_MAX = 10_000;
/** Members of a JWK that only its owner knows. */
const SECRET_MEMBERS = ["d", "p", "q", "dp", "dq", "qi", "oth", "k"];

export interface JwtOptions {
  readonly authJwks: string;
  readonly authJwtIssuer: string;
  readonly authJwtAudience: string;
  readonly authJwtClaim: string;
}

interface Key {
  /** "": it has none. */
  readonly id: string;
  readonly thumbprint: string;
  readonly resolve: ReturnType<typeof createLocalJWKSet>;
}

export class JsonWebTokens implements Reloadable {
  readonly what = "the keys of JSON Web Tokens";
  readonly files: readonly string[];
  readonly #options: JwtOptions;
  readonly #wallMs: () => number;
  readonly #onLoad: () => void;
  #keys: readonly Key[] = [];
  /** By the hash of the token; the oldest first. Emptied when the keys change. */
  readonly #verified = new Map<string, Verified>();

  /** `onLoad` is called after each change of what is accepted. */
  constructor(options: JwtOptions, wallMs: () => number, onLoad: () => void) {
    this.#options = options;
    this.files = [options.authJwks];
    this.#wallMs = wallMs;
    this.#onLoad = onLoad;
  }

  async load(): Promise<void> {
    const file = this.#options.authJwks;
    const text = (await readBounded("authJwks", file, FILE_BYTES_MAX)).toString("utf8");
    const keys = await keysOf(text);
    if (typeof keys === "string") throw new UnusableFileError("authJwks", file, keys);
    this.#keys = keys;
    this.#verified.clear();
    this.#onLoad();
  }

  /** At once for a token that was verified before. */
  authenticate(token: string): Verified | AuthFailure | Promise<Verified | AuthFailure> {
    const digest = createHash("sha256").update(token).digest("base64");
    const known = this.#verified.get(digest);
    if (known === undefined) return this.#verify(token, digest);
    return known.stillValid() ? known : expiredToken;
  }

  async #verify(token: string, digest: string): Promise<Verified | AuthFailure> {
    const keys = this.#keys;
    let failure = unknownToken;
    for (const key of this.#candidates(token)) {
      const verified = await this.#verifyWith(key, token);
      if ("name" in verified) {
        if (keys === this.#keys) this.#remember(digest, verified); // they have not changed meanwhile
        return verified.stillValid() ? verified : unknownToken;
      }
      if (verified.kind === "expired") failure = verified;
    }
    return failure;
  }

  #candidates(token: string): readonly Key[] {
    try {
      const { kid } = decodeProtectedHeader(token);
      return kid === undefined ? this.#keys : this.#keys.filter(({ id }) => id === kid);
    } catch {
      return [];
    }
  }

  async #verifyWith(key: Key, token: string): Promise<Verified | AuthFailure> {
    const { authJwtIssuer: issuer, authJwtAudience: audience, authJwtClaim } = this.#options;
    try {
      const { payload } = await jwtVerify(token, key.resolve, {
        ...{ issuer, audience, algorithms: ALGORITHMS, requiredClaims: ["exp"] },
        clockTolerance: TOLERANCE_SECONDS,
        currentDate: new Date(this.#wallMs()),
      });
      const claim = payload[authJwtClaim];
      if (typeof claim !== "string" || !isName(claim)) return unknownToken;
      const expiresAtMs = ((payload.exp ?? 0) + TOLERANCE_SECONDS) * 1_000;
      const stillValid = () => expiresAtMs > this.#wallMs() && this.#has(key);
      return { name: `jwt/${claim}`, expiresAtMs, stillValid };
    } catch (error) {
      return error instanceof errors.JWTExpired ? expiredToken : unknownToken;
    }
  }

  #has({ thumbprint }: Key): boolean {
    return this.#keys.some((key) => key.thumbprint === thumbprint);
  }

  #remember(digest: string, verified: Verified): void {
    const [oldest] = this.#verified.keys();
    if (this.#verified.size >= VERIFIED_MAX && oldest !== undefined) this.#verified.delete(oldest);
    this.#verified.set(digest, verified);
  }
}

/** The keys of a JWKS, or what is wrong with it. */
async function keysOf(text: string): Promise<readonly Key[] | string> {
  let set: unknown;
  try {
    set = JSON.parse(text);
  } catch {
    return "it is not JSON"; // the parser's message would quote what is there
  }
  const list = (set as { keys?: unknown } | null)?.keys;
  if (!Array.isArray(list) || list.length === 0) return 'it is not a JWKS: {"keys": [...]} with at least one key';
  if (list.length > KEYS_MAX) return `there are more than ${KEYS_MAX} keys in it`;
  const keys: Key[] = [];
  for (const [index, jwk] of list.entries()) {
    const key = await keyOf(jwk);
    if (typeof key === "string") return `key ${index + 1}: ${key}`;
    keys.push(key);
  }
  return keys;
}

async function keyOf(jwk: unknown): Promise<Key | string> {
  if (typeof jwk !== "object" || jwk === null) return "it is no key";
  const secret = SECRET_MEMBERS.find((member) => member in jwk);
  if (secret !== undefined) return `it has the member "${secret}", which nobody but the issuer should have`;
  try {
    const thumbprint = await calculateJwkThumbprint(jwk as JWK);
    const resolve = createLocalJWKSet({ keys: [jwk as JWK] });
    return { id: (jwk as JWK).kid ?? "", thumbprint, resolve };
  } catch (error) {
    return `it cannot be used (${(error as Error).message})`;
  }
}

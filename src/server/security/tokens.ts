/**
 * Static bearer tokens. The file knows only their hashes, one a line:
 *
 *     # who            what                      until when, if ever
 *     ci               sha256:9f86d081884c7d65…  expires=2027-01-31T00:00:00Z
 *
 * A name may have several tokens, so that a new one can be handed out before the old one is taken away. A token has 256
 * random bits: a plain hash of it tells nothing, and needs neither salt nor many rounds.
 */
import { createHash, timingSafeEqual } from "node:crypto";
import type { Verified } from "./authenticator.js";
import { type AuthFailure, expiredToken, unknownToken } from "./failures.js";
import { readBounded, UnusableFileError } from "./files.js";
import type { Reloadable } from "./reload.js";

const FILE_BYTES_MAX = 4_194_304;
const TOKENS_MAX = 10_000;
const NAME = /^[A-Za-z0-9][A-Za-z0-9._@/:+-]{0,127}$/;
const TIME = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,3})?Z$/;

/** A line of the file. */
export interface TokenEntry {
  readonly name: string;
  /** SHA-256 of the token. */
  readonly digest: Buffer;
  /** In ms since 1970; null: never. */
  readonly expiresAtMs: number | null;
}

export const isTokenName = (text: string): boolean => NAME.test(text);

export const digestOf = (token: string): Buffer => createHash("sha256").update(token).digest();

/** The line of a token in the file. */
export function formatToken({ name, digest, expiresAtMs }: TokenEntry): string {
  const expires = expiresAtMs === null ? "" : ` expires=${new Date(expiresAtMs).toISOString()}`;
  return `${name} sha256:${digest.toString("hex")}${expires}`;
}

/** The tokens of a file, or what is wrong with which line. */
export function parseTokens(text: string): readonly TokenEntry[] | string {
  const entries: TokenEntry[] = [];
  const seen = new Set<string>();
  for (const [index, line] of text.split("\n").entries()) {
    const words = line.split("#")[0]!.trim().split(/\s+/).filter(Boolean);
    if (words.length === 0) continue;
    const entry = parseLine(words);
    if (typeof entry === "string") return `line ${index + 1}: ${entry}`;
    const hex = entry.digest.toString("hex");
    if (seen.has(hex)) return `line ${index + 1}: it is the same token as in an earlier line`;
    seen.add(hex);
    if (entries.push(entry) > TOKENS_MAX) return `there are more than ${TOKENS_MAX} tokens in it`;
  }
  return entries;
}

/** The messages quote nothing: somebody may have put a token there. */
function parseLine([name = "", hash = "", expires, ...rest]: readonly string[]): TokenEntry | string {
  if (!isTokenName(name)) return "the name is not 1 to 128 letters, digits and . _ @ / : + -";
  if (!/^sha256:[0-9a-f]{64}$/i.test(hash)) return "the name is not followed by sha256: and 64 hexadecimal digits";
  const digest = Buffer.from(hash.slice("sha256:".length), "hex");
  if (expires === undefined) return { name, digest, expiresAtMs: null };
  const [, time = ""] = /^expires=(.*)$/.exec(expires) ?? [];
  const expiresAtMs = TIME.test(time) ? Date.parse(time) : Number.NaN;
  if (Number.isNaN(expiresAtMs) || rest.length > 0) {
    return "what follows the hash is not expires= and a time such as 2027-01-31T00:00:00Z";
  }
  return { name, digest, expiresAtMs };
}

export class Tokens implements Reloadable {
  readonly what = "the tokens";
  readonly files: readonly string[];
  readonly #file: string;
  readonly #wallMs: () => number;
  readonly #onLoad: () => void;
  #known: ReadonlyMap<number, readonly TokenEntry[]> = new Map();

  /** `onLoad` is called after each change of what is accepted. */
  constructor(file: string, wallMs: () => number, onLoad: () => void) {
    this.#file = file;
    this.files = [file];
    this.#wallMs = wallMs;
    this.#onLoad = onLoad;
  }

  async load(): Promise<void> {
    const text = (await readBounded("authTokens", this.#file, FILE_BYTES_MAX)).toString("utf8");
    const entries = parseTokens(text);
    if (typeof entries === "string") throw new UnusableFileError("authTokens", this.#file, entries);
    this.#known = grouped(entries);
    this.#onLoad();
  }

  authenticate(token: string): Verified | AuthFailure {
    const entry = this.#find(digestOf(token));
    if (entry === undefined) return unknownToken;
    if (this.#expired(entry)) return expiredToken;
    const { name, digest, expiresAtMs } = entry;
    return { name: `token/${name}`, expiresAtMs, stillValid: () => this.#accepts(name, digest) };
  }

  #accepts(name: string, digest: Buffer): boolean {
    const entry = this.#find(digest);
    return entry !== undefined && entry.name === name && !this.#expired(entry);
  }

  /**
   * Compared in constant time with those whose hashes begin alike. How many those are, and nothing more, shows in the
   * time: of the hash of what somebody guessed, which says nothing about a token.
   */
  #find(digest: Buffer): TokenEntry | undefined {
    const candidates = this.#known.get(digest.readUInt32BE(0)) ?? [];
    return candidates.find((entry) => timingSafeEqual(entry.digest, digest));
  }

  #expired({ expiresAtMs }: TokenEntry): boolean {
    return expiresAtMs !== null && expiresAtMs <= this.#wallMs();
  }
}

const bucketOf = (entry: TokenEntry): number => entry.digest.readUInt32BE(0);

/** Of the hashes' first bytes. */
function grouped(entries: readonly TokenEntry[]): Map<number, TokenEntry[]> {
  const groups = new Map<number, TokenEntry[]>();
  for (const entry of entries) {
    const group = groups.get(bucketOf(entry));
    if (group === undefined) groups.set(bucketOf(entry), [entry]);
    else group.push(entry);
  }
  return groups;
}

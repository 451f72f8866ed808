/**
 * The server's certificate, its key, and the authorities whose client certificates are trusted.
 *
 * New ones serve new connections; connections that are open go on with what they were made with. One case is different:
 * when an authority is trusted no longer, connections that it vouched for must not live on. Which those are cannot be
 * told of all (a client may have shown a chain), so listeners are told to have all connections made anew: clients come
 * back within moments, resume their sessions, and show their certificates again.
 */
import { createPrivateKey, type KeyObject, X509Certificate } from "node:crypto";
import { createSecureContext, type SecureContextOptions } from "node:tls";
import { readBounded, UnusableFileError } from "./files.js";
import type { Reloadable } from "./reload.js";

/** Far more than any chain or bundle of authorities needs: the public web's has 220 KiB. */
const FILE_BYTES_MAX = 1_048_576;

const CERTIFICATE = /-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g;

export interface CertificateFiles {
  readonly tlsCert: string;
  readonly tlsKey: string;
  /** "": clients are not asked for certificates. */
  readonly tlsClientCa: string;
}

/** What is served at present. */
export interface Served {
  readonly context: SecureContextOptions;
  /** Of the certificate: "CN=leasehold". */
  readonly subject: string;
  /** In ms since 1970. */
  readonly notAfterMs: number;
  /** By the fingerprints of their certificates. */
  readonly authorities: ReadonlySet<string>;
}

export interface CertificateChange {
  readonly context: SecureContextOptions;
  /** Whether an authority is trusted no longer: the connections that there are have to be made anew. */
  readonly distrust: boolean;
}

export class Certificates implements Reloadable {
  readonly what = "the certificate";
  readonly files: readonly string[];
  readonly #names: CertificateFiles;
  readonly #wallMs: () => number;
  readonly #listeners = new Set<(change: CertificateChange) => void>();
  #served: Served | undefined;

  /** `wallMs`: this machine's time of day, by which certificates expire. */
  constructor(names: CertificateFiles, wallMs: () => number) {
    this.#names = names;
    this.#wallMs = wallMs;
    this.files = [names.tlsCert, names.tlsKey, names.tlsClientCa].filter((file) => file !== "");
  }

  /** Whether clients are asked for a certificate. */
  get asksClients(): boolean {
    return this.#names.tlsClientCa !== "";
  }

  /** Only once it has been loaded. */
  get served(): Served {
    if (this.#served === undefined) throw new Error("the certificates have not been loaded");
    return this.#served;
  }

  /** Calls back when something else is served from now on. Returns how to stop listening. */
  onChange(listener: (change: CertificateChange) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  async load(): Promise<void> {
    const { tlsCert, tlsKey, tlsClientCa } = this.#names;
    const [cert, key, ca] = await Promise.all([
      readBounded("tlsCert", tlsCert, FILE_BYTES_MAX),
      readBounded("tlsKey", tlsKey, FILE_BYTES_MAX),
      tlsClientCa === "" ? null : readBounded("tlsClientCa", tlsClientCa, FILE_BYTES_MAX),
    ]);
    const before = this.#served;
    const served = check(this.#names, cert, key, ca, this.#wallMs());
    this.#served = served;
    const distrust = [...(before?.authorities ?? [])].some((known) => !served.authorities.has(known));
    for (const listener of [...this.#listeners]) listener({ context: served.context, distrust });
  }
}

/** Throws an `UnusableFileError` for the file that is to blame. */
function check(names: CertificateFiles, cert: Buffer, key: Buffer, ca: Buffer | null, nowMs: number): Served {
  const [leaf] = certificatesIn("tlsCert", names.tlsCert, cert);
  const notAfterMs = Date.parse(leaf.validTo);
  if (!(notAfterMs > nowMs)) throw new UnusableFileError("tlsCert", names.tlsCert, `it expired on ${leaf.validTo}`);
  if (!leaf.checkPrivateKey(keyIn(names.tlsKey, key))) {
    throw new UnusableFileError("tlsKey", names.tlsKey, `it is not the key of the certificate in ${names.tlsCert}`);
  }
  const authorities = ca === null ? [] : certificatesIn("tlsClientCa", names.tlsClientCa, ca);
  // Without authorities of ours the system's would be taken; they are never asked, as no client shows a certificate.
  const context: SecureContextOptions = { cert, key, minVersion: "TLSv1.2", ...(ca === null ? {} : { ca }) };
  try {
    createSecureContext(context);
  } catch (error) {
    const problem = `it cannot be served (${(error as Error).message})`;
    throw new UnusableFileError("tlsCert", names.tlsCert, problem);
  }
  const subject = leaf.subject.replaceAll("\n", ", ");
  return { context, subject, notAfterMs, authorities: new Set(authorities.map((each) => each.fingerprint256)) };
}

type AtLeastOne<T> = readonly [T, ...T[]];

function certificatesIn(option: string, file: string, pem: Buffer): AtLeastOne<X509Certificate> {
  const blocks = pem.toString("latin1").match(CERTIFICATE) ?? [];
  try {
    const [first, ...others] = blocks.map((block) => new X509Certificate(block));
    if (first !== undefined) return [first, ...others];
  } catch (error) {
    throw new UnusableFileError(option, file, `one of its certificates cannot be read (${(error as Error).message})`);
  }
  throw new UnusableFileError(option, file, "there is no certificate in it (PEM)");
}

function keyIn(file: string, pem: Buffer): KeyObject {
  try {
    return createPrivateKey(pem);
  } catch (error) {
    const encrypted = (error as NodeJS.ErrnoException).code === "ERR_MISSING_PASSPHRASE";
    const problem = encrypted
      ? "the key is encrypted; it is needed without a passphrase"
      : "there is no key in it (PEM)";
    throw new UnusableFileError("tlsKey", file, problem);
  }
}

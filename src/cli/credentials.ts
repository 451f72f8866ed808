/**
 * What commands show to a server, and what they trust: `--ca --cert --key --auth-token-file --plaintext`.
 *
 * As the SDK does: to this machine without encryption unless certificates are given, to all others with it. Files are
 * read anew for each connection, so that a command that runs for long goes on with new ones.
 */
import { readFileSync, statSync } from "node:fs";
import { type ChannelCredentials, credentials } from "@grpc/grpc-js";
import type { ConnectOptions, TlsOptions } from "@leasehold/client";
import { type Command, Option } from "commander";
import { type Endpoint, formatEndpoint, isLocal } from "../server/config/endpoint.js";
import { CliError, exitCode } from "./exit.js";

export interface CredentialFlags {
  readonly ca?: string;
  readonly cert?: string;
  readonly key?: string;
  readonly authTokenFile?: string;
  readonly plaintext?: boolean;
}

const TOKEN_BYTES_MAX = 16_384;

/** Files whose permissions have been complained of. */
const warned = new Set<string>();

export function credentialOptions(command: Command): Command {
  const file = (flag: string, text: string, variable: string) =>
    new Option(`${flag} <file>`, text).env(variable).helpGroup("Security:");
  return command
    .addOption(file("--ca", "the authorities (PEM) that the server's certificate is to be of", "LEASEHOLD_CA"))
    .addOption(file("--cert", "this client's certificate (PEM)", "LEASEHOLD_CERT"))
    .addOption(file("--key", "the key of that certificate (PEM)", "LEASEHOLD_KEY"))
    .addOption(file("--auth-token-file", "a file with the bearer token to show", "LEASEHOLD_AUTH_TOKEN_FILE"))
    .addOption(
      // Not by commander's own means: to it any value of a variable, "0" too, would switch the encryption off.
      new Option("--plaintext", "talk to other machines without encryption (env: LEASEHOLD_PLAINTEXT=1)")
        .default(isOn(process.env.LEASEHOLD_PLAINTEXT), "off")
        .helpGroup("Security:"),
    );
}

const isOn = (text: string | undefined): boolean => text === "1" || text === "true";

/** The options of the SDK's `connect`. Throws a `CliError` for files that cannot be read now. */
export function connectOptions(flags: CredentialFlags): Pick<ConnectOptions, "tls" | "token"> {
  check(flags);
  const { authTokenFile } = flags;
  const token = authTokenFile ? { token: () => readToken(authTokenFile) } : {};
  if (flags.plaintext) return { tls: false, ...token };
  return certifies(flags) ? { tls: () => tlsOptions(flags), ...token } : token;
}

/** For grpc-js. Throws a `CliError` for what cannot be used. */
export function channelCredentials(endpoint: Endpoint, flags: CredentialFlags): ChannelCredentials {
  check(flags);
  if (flags.plaintext || (isLocal(endpoint) && !certifies(flags))) {
    if (flags.authTokenFile && !isLocal(endpoint)) {
      throw usage(`a token is not sent to ${formatEndpoint(endpoint)} without encryption; leave out --plaintext`);
    }
    return credentials.createInsecure();
  }
  // Node warns that a numeric address is no server name, which TLS would like to have; it is not ours to give one.
  process.noDeprecation = true;
  const { ca = null, key = null, cert = null } = tlsOptions(flags);
  try {
    return credentials.createSsl(asBuffer(ca), asBuffer(key), asBuffer(cert));
  } catch (error) {
    throw usage(`the certificates cannot be used: ${(error as Error).message}`);
  }
}

/** Null: none is to be shown. Throws a `CliError`. */
export const tokenOf = ({ authTokenFile }: CredentialFlags): string | null =>
  authTokenFile ? readToken(authTokenFile) : null;

const asBuffer = (pem: string | Uint8Array | null): Buffer | null => (pem === null ? null : Buffer.from(pem));

const usage = (text: string): CliError => new CliError(`leasehold: ${text}`, exitCode.usage);

const certifies = ({ ca, cert, key }: CredentialFlags): boolean => Boolean(ca || cert || key);

/** Says what is wrong before anything is tried. */
function check(flags: CredentialFlags): void {
  if (Boolean(flags.cert) !== Boolean(flags.key)) throw usage("--cert and --key belong together");
  if (flags.plaintext && certifies(flags)) throw usage("--plaintext makes no use of --ca, --cert and --key");
  tlsOptions(flags);
  tokenOf(flags);
}

function tlsOptions({ ca, cert, key }: CredentialFlags): TlsOptions {
  return {
    ...(ca ? { ca: read("--ca", ca) } : {}),
    ...(cert ? { cert: read("--cert", cert) } : {}),
    ...(key ? { key: read("--key", key) } : {}),
  };
}

function readToken(file: string): string {
  const text = read("--auth-token-file", file);
  const token = text.trim();
  if (text.length > TOKEN_BYTES_MAX || !/^[A-Za-z0-9._~+/=-]+$/.test(token)) {
    throw usage(`--auth-token-file: ${JSON.stringify(file)} has no token in it, or more than one`);
  }
  warnOfReaders(file);
  return token;
}

function warnOfReaders(file: string): void {
  const mode = statSync(file).mode & 0o777;
  if ((mode & 0o004) === 0 || warned.has(file)) return;
  warned.add(file);
  process.stderr.write(
    `leasehold: everybody on this machine can read the token in ${file}; chmod 600 would end that\n`,
  );
}

function read(flag: string, file: string): string {
  try {
    return readFileSync(file, "utf8");
  } catch (error) {
    throw usage(`${flag}: cannot read ${JSON.stringify(file)} (${(error as NodeJS.ErrnoException).code})`);
  }
}

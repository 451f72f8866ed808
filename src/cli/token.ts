/** `leasehold token`: makes bearer tokens for a server, which itself keeps only their hashes. */
import { randomBytes } from "node:crypto";
import { type Command, Option } from "commander";
import { digestOf, formatToken, isTokenName, parseTokens, type TokenEntry } from "../server/security/tokens.js";
import { positiveDuration } from "./arguments.js";
import { CliError, exitCode } from "./exit.js";
import { json, plain, print, table } from "./output.js";
import { appendLine, readText } from "./token-file.js";

/** What nobody guesses. */
const TOKEN_BYTES = 32;
/** So that a token that lies about somewhere is seen to be one. */
const PREFIX = "lh_";
/** The latest time that JavaScript knows is far behind it. */
const EXPIRES_MS_MAX = 100 * 365.25 * 86_400_000;

const NEW_HELP = `
The token is printed once, and nobody can find it out later: the server knows its hash. Without --file the line for the
server's file is told on standard error. A name may have several tokens; to exchange one, make a new one, hand it out,
and then delete the line of the old one.

  leasehold token new ci --expires 90d --file tokens > ci.token`;

export function registerToken(program: Command): void {
  const token = program.command("token").description("make the bearer tokens that a server accepts");
  token
    .command("new")
    .description("make a token, and print it")
    .argument("<name>", 'whose it is; policies know it as "token/NAME"')
    .addOption(
      new Option("--expires <duration>", "how long it is good (default: for ever)").argParser(positiveDuration),
    )
    .option("--file <file>", "the server's file of tokens, to which the new one is added")
    .option("--json", "print JSON, for programs", false)
    .addHelpText("after", NEW_HELP)
    .action(newToken);
  token
    .command("list")
    .description("tell whose tokens are in a file, and until when they are good")
    .requiredOption("--file <file>", "the server's file of tokens")
    .option("--json", "print JSON, for programs", false)
    .action(listTokens);
}

interface NewFlags {
  readonly expires?: number;
  readonly file?: string;
  readonly json: boolean;
}

function newToken(name: string, flags: NewFlags): void {
  if (!isTokenName(name))
    throw usage("a name has 1 to 128 letters, digits and . _ @ / : + -, the first a letter or digit");
  if ((flags.expires ?? 0) > EXPIRES_MS_MAX) throw usage("--expires: a hundred years are the most");
  const token = PREFIX + randomBytes(TOKEN_BYTES).toString("base64url");
  const expiresAtMs = flags.expires === undefined ? null : Date.now() + flags.expires;
  const line = formatToken({ name, digest: digestOf(token), expiresAtMs });
  if (flags.file !== undefined) appendLine(flags.file, line, checked);
  if (flags.json) {
    print(json({ name, token, line, expiresAt: isoTime(expiresAtMs) }));
    return;
  }
  const where =
    flags.file === undefined ? `The line for the server's file of tokens:\n${line}` : `${flags.file}: ${line}`;
  process.stderr.write(`${where}\n`);
  print(`${token}\n`);
}

function listTokens({ file, json: asJson }: { readonly file: string; readonly json: boolean }): void {
  const entries = checked(file, readText(file));
  if (asJson) print(json({ tokens: entries.map(forJson) }));
  else if (entries.length === 0) print("no tokens\n");
  else print(table(["name", "hash", "expires"], entries.map(row)));
}

const forJson = ({ name, digest, expiresAtMs }: TokenEntry) => ({
  name,
  sha256: digest.toString("hex"),
  expiresAt: isoTime(expiresAtMs),
  expired: isExpired(expiresAtMs),
});

const row = ({ name, digest, expiresAtMs }: TokenEntry): readonly string[] => [
  name,
  digest.toString("hex").slice(0, 12),
  expiresAtMs === null ? "never" : `${isoTime(expiresAtMs)}${isExpired(expiresAtMs) ? " (expired)" : ""}`,
];

const isoTime = (ms: number | null): string | null => (ms === null ? null : new Date(ms).toISOString());
const isExpired = (ms: number | null): boolean => ms !== null && ms <= Date.now();

/** The tokens of a file. Throws a `CliError` for one that a server would refuse. */
function checked(file: string, text: string): readonly TokenEntry[] {
  const entries = parseTokens(text);
  if (typeof entries === "string") throw new CliError(`${plain(file)}: ${entries}`, exitCode.config);
  return entries;
}

const usage = (text: string): CliError => new CliError(`leasehold token: ${text}`, exitCode.usage);

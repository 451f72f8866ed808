/**
 * `leasehold restore FILE --store level:DIR`: a store of its own out of a backup.
 *
 * Two things the file cannot know are asked for: how many tokens have been granted since, and whether anybody may still
 * believe in a lock. Both are answered to the safe side where nobody knows: a large advance costs nothing, and to wait
 * costs time but no lock.
 */
import { type Command, InvalidArgumentError, Option } from "commander";
import { endQuiet, type ReadBackup, readBackupFile, restoreLevel } from "../server/backup/restore.js";
import type { RestorePlan } from "../server/core/restore.js";
import { JournalCorruptError, JournalRefusedError } from "../server/journal/journal.js";
import { parseStore } from "../server/journal/open.js";
import { duration as durationOption, positive } from "./arguments.js";
import { ask, canAsk, isYes } from "./ask.js";
import { backupForJson, backupRows, reading } from "./backup-view.js";
import { CliError, exitCode } from "./common.js";
import { duration, json, list, print } from "./output.js";

interface RestoreOptions {
  /** The directory. */
  readonly store: string;
  readonly advanceTokens?: number;
  readonly clientsStopped?: true;
  readonly quietPeriod?: number;
  readonly endQuiet?: true;
  readonly yes?: true;
  readonly json: boolean;
}

/** More than a server grants per second, by which the age of a backup becomes a suggestion. */
const GRANTS_PER_SECOND = 200_000;
const SUGGESTED_MIN = 1_000_000_000;

const HELP = `
Locks, leases and sessions of the backup do not come back: they may have ended since, and their locks may be held by
others. Clients that come back are told that what they had is lost. What comes back is what keeps them safe: the identity
of the store, and its counters, put ahead.

--advance-tokens: locks granted after the backup have tokens that the backup does not know. If the restored store granted
one of these numbers again, a fence could not tell the two holders apart. So it goes on that far above the last token of
the backup: choose more than can have been granted since. A large number costs nothing; there are 9,000,000,000,000,000.
Should it be too small, the first client of the SDK that has seen a higher token stops the server from granting.

--clients-stopped: who was granted a lock before the restore may believe in it until its lease has run out. So nothing is
granted until the longest lease that the server permitted has passed, unless this says that no client is running that
was running then. The option --end-quiet says so later, while the server is stopped.

Exit codes: 0 restored; 1 not confirmed at the question; 64 usage; 65 the file is damaged; 78 the store cannot be used.`;

export function registerRestore(program: Command): void {
  const store = new Option("--store <store>", "the new store: level:DIRECTORY, which must be empty or not there")
    .env("LEASEHOLD_STORE")
    .argParser(directory)
    .makeOptionMandatory();
  program
    .command("restore")
    .summary("make a store out of a backup")
    .description("Make a new store out of a backup, for a server that goes on in place of the one that was lost.")
    .argument("[file]", "the backup")
    .addOption(store)
    .option("--advance-tokens <n>", "how many tokens may have been granted since the backup, at most", positive)
    .option("--clients-stopped", "no client is running that was running before: grant locks at once")
    .option("--quiet-period <duration>", "grant nothing for this long (default: the longest lease)", durationOption)
    .option("--end-quiet", "no FILE: end the time in which the restored store grants nothing; no client is running")
    .option("-y, --yes", "do not ask")
    .option("--json", "print JSON, for programs", false)
    .addHelpText("after", HELP)
    .action(async (file: string | undefined, options: RestoreOptions) => {
      if (options.endQuiet) process.exitCode = await storing(end(file, options));
      else if (file === undefined) throw usage("which backup? give its FILE");
      else process.exitCode = await restore(file, options);
    });
}

const usage = (text: string) => new CliError(`leasehold restore: ${text}`, exitCode.usage);

function directory(text: string): string {
  const parsed = parseStore(text);
  if (!parsed.ok) throw new InvalidArgumentError(parsed.error);
  if (parsed.store.kind !== "level") {
    throw new InvalidArgumentError("The store ends with this process. Restore into level:DIRECTORY.");
  }
  return parsed.store.directory;
}

/** Returns the exit code. */
async function restore(file: string, options: RestoreOptions): Promise<number> {
  const { clientsStopped, quietPeriod, yes } = options;
  if (clientsStopped && quietPeriod !== undefined)
    throw usage("--clients-stopped and --quiet-period exclude each other");
  if (!canAsk() && (options.advanceTokens === undefined || !yes)) {
    throw usage("there is no terminal to ask on; give --advance-tokens N and --yes. --help explains them");
  }
  const backup = await reading(file, readBackupFile(file));
  const plan = await planned(backup, options);
  if (plan === null) {
    process.stderr.write("nothing was restored\n");
    return exitCode.declined;
  }
  const { advanceTokensMax } = backup.restoration;
  if (plan.advanceTokens > advanceTokensMax) {
    throw usage(`--advance-tokens ${plan.advanceTokens} leaves too few tokens; at most ${advanceTokensMax}`);
  }
  await storing(restoreLevel(options.store, backup, plan));
  const firstToken = backup.restoration.contents.lastToken + plan.advanceTokens + 1;
  if (options.json) print(json({ ...backupForJson(backup), store: `level:${options.store}`, firstToken, ...plan }));
  else print(list([...backupRows(backup), ...planRows(options.store, firstToken, plan)]));
  return exitCode.ok;
}

function planRows(store: string, firstToken: number, { quietMs }: RestorePlan): [string, string][] {
  const grants =
    quietMs === 0 ? "at once: all clients are stopped" : `when the server has run for ${duration(quietMs)}`;
  return [
    ["restored", `into level:${store}`],
    ["first token", String(firstToken)],
    ["grants", grants],
  ];
}

/** What is to be done, after questions where there is a terminal; null: nothing. */
async function planned(backup: ReadBackup, options: RestoreOptions): Promise<RestorePlan | null> {
  const { header } = backup.summary;
  const { lastToken } = backup.restoration.contents;
  const longestMs = options.quietPeriod ?? header.ttlMsMax;
  let { advanceTokens } = options;
  let stopped = options.clientsStopped === true;
  if (options.yes && advanceTokens !== undefined) return { advanceTokens, quietMs: stopped ? 0 : longestMs };
  process.stderr.write(list(backupRows(backup)));
  if (advanceTokens === undefined) {
    const suggested = suggestion(Date.now() - header.takenWallMs);
    process.stderr.write(
      `\nTokens granted after the backup are above ${lastToken}, and must not be granted again.\n` +
        "More tokens than can have been granted since: a large number costs nothing.\n",
    );
    advanceTokens = numberOf(await ask(`Advance the tokens by how many? [${suggested}] `), suggested);
    if (advanceTokens === undefined) return null;
  }
  if (!stopped && options.quietPeriod === undefined) {
    process.stderr.write(
      "\nWhoever was granted a lock before may believe in it until its lease runs out. Unless all clients are stopped,\n" +
        `nothing is granted until the longest lease, ${duration(longestMs)}, has passed.\n`,
    );
    const answer = await ask("Are all clients stopped that were running before? [y/N] ");
    if (answer === null) return null;
    stopped = isYes(answer);
  }
  const when = stopped ? "grant locks at once" : `grant nothing for ${duration(longestMs)}`;
  const question = `\nRestore into level:${options.store}, go on at token ${lastToken + advanceTokens + 1} and ${when}? [y/N] `;
  if (!options.yes && !isYes(await ask(question))) return null;
  return { advanceTokens, quietMs: stopped ? 0 : longestMs };
}

/** At least a billion, and more than can be granted in that time; one digit and zeros. */
function suggestion(ageMs: number): number {
  const most = Math.max(SUGGESTED_MIN, (ageMs / 1_000) * GRANTS_PER_SECOND);
  const unit = 10 ** Math.floor(Math.log10(most));
  return Math.ceil(most / unit) * unit;
}

/** Undefined: no answer, or no number. */
function numberOf(answer: string | null, suggested: number): number | undefined {
  if (answer === null) return undefined;
  if (answer === "") return suggested;
  const value = Number(answer.replace(/[,_ ]/g, ""));
  return Number.isSafeInteger(value) && value > 0 ? value : undefined;
}

/** Returns the exit code. */
async function end(file: string | undefined, { store, yes, json: asJson }: RestoreOptions): Promise<number> {
  if (file !== undefined) throw usage("--end-quiet takes no FILE");
  if (!yes) {
    if (!canAsk()) throw usage("there is no terminal to ask on; give --yes if no client is running");
    if (!isYes(await ask("Are all clients stopped that were running before the restore? [y/N] "))) {
      process.stderr.write("nothing was changed\n");
      return exitCode.declined;
    }
  }
  const ended = await endQuiet(store);
  if (asJson) print(json({ store: `level:${store}`, ended }));
  else print(ended ? "ended: the server grants locks when it is started\n" : "the store grants locks already\n");
  return exitCode.ok;
}

async function storing<T>(work: Promise<T>): Promise<T> {
  try {
    return await work;
  } catch (error) {
    const expected = error instanceof JournalRefusedError || error instanceof JournalCorruptError;
    if (expected || (error instanceof Error && "syscall" in error)) {
      throw new CliError(`leasehold: ${(error as Error).message}`, exitCode.config);
    }
    throw error;
  }
}

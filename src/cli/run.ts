/**
 * `leasehold run NAME -- COMMAND`: runs a command while holding a lock, and sees to it that the command does not outlive
 * the lock. How: see run/guardian.ts.
 */
import { isUtf8 } from "node:buffer";
import { readFileSync } from "node:fs";
import { isatty } from "node:tty";
import { type Command, InvalidArgumentError, Option } from "commander";
import { formatDurationMs, parseDurationMs } from "../server/config/units.js";
import { CliError, DEFAULT_ADDR, exitCode } from "./common.js";
import { planFor } from "./run/belief.js";
import { type Job, runJob } from "./run/job.js";

interface RunFlags {
  readonly ttl: number;
  readonly wait?: number;
  readonly try?: true;
  readonly busyCode: number;
  readonly killAfter: number;
  readonly foreground?: true;
  readonly addr: string;
}

const HELP = `
What follows NAME, or --, is started as it stands, without a shell. It finds LEASEHOLD_TOKEN (the fencing token),
LEASEHOLD_LOCK and LEASEHOLD_ADDR in its environment (and LEASEHOLD_RUN, by which its descendants are found). Without a command the token is printed and the lock held until
a signal comes.

When the lock is lost the command is ended, before anybody else gets the lock: SIGTERM, and SIGKILL after --kill-after,
to its whole process group. That holds also if this process is stopped or killed: a second process, the guardian,
watches over the command. On a terminal (or with --foreground) the command stays in the terminal's process group, so
that it can read from it; it and its descendants are then ended one by one, which on systems other than Linux reaches
the command itself only.

Exit codes: the command's own; 128+N if signal N ended it, or the wait; 126 it cannot be executed; 127 not found;
64 usage; 69 server unreachable; 75 busy, or the wait is over (see -E); 77 denied; 79 lost, and the command ended.`;

export function registerRun(program: Command): void {
  program
    .command("run")
    .alias("lock")
    .summary("run a command while holding a lock")
    .description("Take a lock, run a command, release the lock. The command never outlives the lock.")
    .usage("[options] NAME [--] [COMMAND...]")
    .argument("<name>", "the name of the lock")
    .argument("[command...]", "the command and its arguments")
    .passThroughOptions()
    .addOption(
      new Option("--ttl <duration>", "how long the lock outlives a holder that is gone")
        .default(15_000, "15s")
        .argParser(duration),
    )
    .addOption(
      new Option("-w, --wait <duration>", "how long to wait for the lock (default: for ever)").argParser(duration),
    )
    .addOption(new Option("-n, --try", "do not wait").conflicts("wait"))
    .addOption(
      new Option("-E, --busy-code <n>", "exit code for: busy, or the wait is over")
        .default(exitCode.busy)
        .argParser(code),
    )
    .addOption(
      new Option("--kill-after <duration>", "from SIGTERM to SIGKILL").default(3_000, "3s").argParser(duration),
    )
    .option("--foreground", "keep the command in the terminal's process group (automatic on a terminal)")
    .addOption(new Option("--addr <host:port>", "the server").env("LEASEHOLD_ADDR").default(DEFAULT_ADDR))
    .addHelpText("after", HELP)
    .action(async (name: string, rest: string[], _flags: RunFlags, self: Command) => {
      const command = commandWords(self, rest);
      process.exit(await runJob(jobOf(name, command, self.opts<RunFlags>())));
    });
}

/** What follows the name: options of ours as far as they go, then the command, with or without "--" before it. */
function commandWords(self: Command, rest: readonly string[]): readonly string[] {
  if (rest[0] === "--") return rest.slice(1);
  const { operands, unknown } = self.parseOptions([...rest]);
  const [word] = unknown;
  if (word === "-h" || word === "--help") self.help();
  if (word !== undefined) throw new CliError(`leasehold run: unknown option ${JSON.stringify(word)}`, exitCode.usage);
  return operands;
}

function jobOf(name: string, command: readonly string[], flags: RunFlags): Job {
  if (process.platform === "win32")
    throw new CliError("leasehold run: there are no process groups on Windows", exitCode.usage);
  if (flags.try && flags.wait !== undefined) throw usage("--try and --wait exclude each other");
  if (command.some((word) => word.includes("\uFFFD")) && !argumentsAreText()) {
    throw usage("an argument is not UTF-8; it would not reach the command as it is");
  }
  const planned = planFor(flags.ttl, flags.killAfter);
  if (!planned.ok) {
    const [ttl, grace, margin, least] = [flags.ttl, flags.killAfter, planned.marginMs, planned.ttlMsMin].map(
      formatDurationMs,
    );
    throw usage(
      `--ttl ${ttl} is too short to end the command in time: 3 x (--kill-after ${grace} + margin ${margin}) = ${least}`,
    );
  }
  return {
    name,
    command,
    addr: flags.addr,
    ttlMs: flags.ttl,
    waitMs: flags.try ? 0 : (flags.wait ?? Number.POSITIVE_INFINITY),
    busyCode: flags.busyCode,
    plan: planned.plan,
    foreground: flags.foreground === true || isatty(0),
  };
}

const usage = (text: string) => new CliError(`leasehold run: ${text}`, exitCode.usage);

/** Node decodes arguments as UTF-8 and replaces what is not by U+FFFD, which is a character of its own, too. */
function argumentsAreText(): boolean {
  try {
    return isUtf8(readFileSync("/proc/self/cmdline"));
  } catch {
    return false;
  }
}

function duration(text: string): number {
  const ms = parseDurationMs(text);
  if (ms === undefined) throw new InvalidArgumentError('It is not a duration such as "500ms", "15s", "5m".');
  return ms;
}

function code(text: string): number {
  const value = Number(text);
  if (!/^\d{1,3}$/.test(text) || value > 255) throw new InvalidArgumentError("It is not a number from 0 to 255.");
  return value;
}

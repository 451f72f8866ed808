/**
 * `leasehold run NAME -- COMMAND`: runs a command while holding a lock, and sees to it that the command does not outlive
 * the lock. How: see run/guardian.ts.
 */
import { type Command, InvalidArgumentError, Option } from "commander";
import { duration, positive } from "./arguments.js";
import { exitCode } from "./common.js";
import { commandWords, type HoldFlags, holdOptions, taskOf, usage } from "./run/flags.js";
import { type Job, runJob } from "./run/job.js";
import type { Task } from "./run/task.js";

interface RunFlags extends HoldFlags {
  readonly wait?: number;
  readonly try?: true;
  readonly busyCode: number;
  readonly shared?: true;
  readonly permits?: number;
  readonly take?: number;
}

const HELP = `
What follows NAME, or --, is started as it stands, without a shell. It finds LEASEHOLD_TOKEN (the fencing token),
LEASEHOLD_LOCK, LEASEHOLD_ADDR and, with --permits, LEASEHOLD_SLOT (which of the permits it has, from 0; several with
commas) in its environment, and LEASEHOLD_RUN, by which its descendants are found. Without a command the token is
printed and the lock held until a signal comes.

When the lock is lost the command is ended, before anybody else gets the lock: SIGTERM, and SIGKILL after --kill-after,
to its whole process group. That holds also if this process is stopped or killed: a second process, the guardian,
watches over the command. On a terminal (or with --foreground) the command stays in the terminal's process group, so
that it can read from it; it and its descendants are then ended one by one, which on systems other than Linux reaches
the command itself only.

Exit codes: the command's own; 128+N if signal N ended it, or the wait; 126 it cannot be executed; 127 not found;
64 usage; 69 server unreachable; 75 busy, or the wait is over (see -E); 77 denied; 79 lost, and the command ended.`;

export function registerRun(program: Command): void {
  const command = program
    .command("run")
    .alias("lock")
    .summary("run a command while holding a lock")
    .description("Take a lock, run a command, release the lock. The command never outlives the lock.")
    .usage("[options] NAME [--] [COMMAND...]")
    .argument("<name>", "the name of the lock")
    .argument("[command...]", "the command and its arguments")
    .addOption(
      new Option("-w, --wait <duration>", "how long to wait for the lock (default: for ever)").argParser(duration),
    )
    .addOption(new Option("-n, --try", "do not wait").conflicts("wait"))
    .addOption(
      new Option("-E, --busy-code <n>", "exit code for: busy, or the wait is over")
        .default(exitCode.busy)
        .argParser(code),
    )
    .addOption(new Option("-s, --shared", "hold it together with others who say so").conflicts("permits"))
    .addOption(
      new Option("--permits <n>", "a semaphore: there are n permits; the smallest n that is given counts").argParser(
        positive,
      ),
    )
    .addOption(new Option("--take <n>", "how many of the permits to take (default: 1)").argParser(positive));
  holdOptions(command)
    .addHelpText("after", HELP)
    .action(async (name: string, rest: string[], _flags: RunFlags, self: Command) => {
      const words = commandWords(self, rest);
      process.exit(await runJob(jobOf(self, name, words, self.opts<RunFlags>())));
    });
}

function jobOf(self: Command, name: string, command: readonly string[], flags: RunFlags): Job {
  if (flags.try && flags.wait !== undefined) throw usage(self, "--try and --wait exclude each other");
  return {
    ...taskOf(self, name, command, flags, modeOf(self, flags)),
    waitMs: flags.try ? 0 : (flags.wait ?? Number.POSITIVE_INFINITY),
    busyCode: flags.busyCode,
  };
}

function modeOf(self: Command, { shared, permits, take }: RunFlags): Pick<Task["request"], "mode" | "permits"> {
  if (shared && permits !== undefined) throw usage(self, "--shared and --permits exclude each other");
  if (permits === undefined) {
    if (take !== undefined) throw usage(self, "--take says how many of the --permits to take; give --permits");
    return shared ? { mode: "shared" } : {};
  }
  if (take !== undefined && take > permits) throw usage(self, `there are ${permits} permits; --take ${take} is more`);
  return { permits: { of: permits, take: take ?? 1 } };
}

function code(text: string): number {
  const value = Number(text);
  if (!/^\d{1,3}$/.test(text) || value > 255) throw new InvalidArgumentError("It is not a number from 0 to 255.");
  return value;
}

/** The options that `run` and `elect` share, and the command behind them. */
import { isUtf8 } from "node:buffer";
import { readFileSync } from "node:fs";
import { isatty } from "node:tty";
import { type Command, Option } from "commander";
import { nearest } from "../../server/config/nearest.js";
import { formatDurationMs } from "../../server/config/units.js";
import { duration, positiveDuration } from "../arguments.js";
import { CliError, DEFAULT_ADDR, exitCode } from "../common.js";
import { type CredentialFlags, connectOptions, credentialOptions } from "../credentials.js";
import { type Plan, planFor } from "./belief.js";
import { sayAs } from "./say.js";
import type { Task } from "./task.js";

export interface HoldFlags extends CredentialFlags {
  readonly ttl: number;
  readonly maxHold?: number;
  readonly lockDelay?: number;
  readonly killAfter: number;
  readonly foreground?: true;
  readonly addr: string;
}

export function holdOptions(command: Command): Command {
  const self = command
    .passThroughOptions()
    .addOption(
      new Option("--ttl <duration>", "how long the lock outlives a holder that is gone")
        .default(15_000, "15s")
        .argParser(duration),
    )
    .addOption(
      new Option("--max-hold <duration>", "end the command before it has had the lock for so long").argParser(
        positiveDuration,
      ),
    )
    .addOption(
      new Option(
        "--lock-delay <duration>",
        "if the lock is lost without a release: how long nobody gets it (default: 0)",
      ).argParser(duration),
    )
    .addOption(
      new Option("--kill-after <duration>", "from SIGTERM to SIGKILL").default(3_000, "3s").argParser(duration),
    )
    .option("--foreground", "keep the command in the terminal's process group (automatic on a terminal)")
    .addOption(new Option("--addr <host:port>", "the server").env("LEASEHOLD_ADDR").default(DEFAULT_ADDR));
  return credentialOptions(self);
}

/** What follows the name: options of ours as far as they go, then the command, with or without "--" before it. */
export function commandWords(self: Command, rest: readonly string[]): readonly string[] {
  if (rest[0] === "--") return rest.slice(1);
  const { operands, unknown } = self.parseOptions([...rest]);
  const [word] = unknown;
  if (word === "-h" || word === "--help") self.help();
  if (word !== undefined) throw usage(self, `unknown option ${JSON.stringify(word)}${suggestion(self, word)}`);
  return operands;
}

function suggestion(self: Command, word: string): string {
  const flags = self.options.flatMap(({ long }) => (long ? [long] : []));
  const near = word.startsWith("--") ? nearest(word.split("=")[0] ?? "", flags) : undefined;
  return near === undefined ? "" : ` (Did you mean ${near}?)`;
}

export const usage = (self: Command, text: string): CliError =>
  new CliError(`leasehold ${self.name()}: ${text}`, exitCode.usage);

/** The task, but for what the lock is asked for with. */
export function taskOf(
  self: Command,
  name: string,
  command: readonly string[],
  flags: HoldFlags,
  request: Omit<Task["request"], "ttl" | "maxHold" | "lockDelay">,
): Task {
  if (process.platform === "win32") throw usage(self, "there are no process groups on Windows");
  if (command.some((word) => word.includes("\uFFFD")) && !argumentsAreText()) {
    throw usage(self, "an argument is not UTF-8; it would not reach the command as it is");
  }
  const { ttl, maxHold, lockDelay, addr } = flags;
  return {
    ...{ name, command, addr },
    credentials: connectOptions(flags),
    request: { ttl, maxHold, lockDelay, ...request },
    plan: checkedPlan(self, flags),
    foreground: flags.foreground === true || isatty(0),
    say: sayAs(self.name() === "elect" ? "elect" : "run"),
  };
}

function checkedPlan(self: Command, { ttl, killAfter, maxHold }: HoldFlags): Plan {
  const planned = planFor(ttl, killAfter);
  const text = formatDurationMs;
  if (!planned.ok) {
    const { marginMs, ttlMsMin } = planned;
    const least = `3 x (--kill-after ${text(killAfter)} + margin ${text(marginMs)}) = ${text(ttlMsMin)}`;
    throw usage(self, `--ttl ${text(ttl)} is too short to end the command in time: ${least}`);
  }
  const { graceMs, marginMs } = planned.plan;
  // Of the maximum hold, too, the client believes a margin less than the server.
  if (maxHold !== undefined && maxHold <= graceMs + 2 * marginMs) {
    const least = `--kill-after ${text(killAfter)} + 2 x margin ${text(marginMs)} = ${text(graceMs + 2 * marginMs)}`;
    throw usage(self, `--max-hold ${text(maxHold)} leaves the command no time; it must be longer than ${least}`);
  }
  return planned.plan;
}

/** Node decodes arguments as UTF-8 and replaces what is not by U+FFFD, which is a character of its own, too. */
function argumentsAreText(): boolean {
  try {
    return isUtf8(readFileSync("/proc/self/cmdline"));
  } catch {
    return false;
  }
}

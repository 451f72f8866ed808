/** `leasehold elect NAME -- COMMAND`: runs a command while leading, in whichever process leads. */
import type { Command } from "commander";
import { runElection } from "./run/election.js";
import { commandWords, type HoldFlags, holdOptions, taskOf, usage } from "./run/flags.js";

interface ElectFlags extends HoldFlags {
  readonly value?: string;
}

const HELP = `
One of those who name the same NAME leads; the others wait. The leader runs the command, which finds in its environment
what leasehold run gives it. When the lead is lost the command is ended, before anybody else leads, and this process
stands again. A restart of the server costs nobody the lead, as long as the lease lives.

A leadership is a lock, held exclusively, with the value as its metadata: leasehold locks describe NAME tells who leads,
leasehold watch --name NAME who leads next.

It ends when the command has ended by itself, with the command's exit code, or by a signal: 128+N. Other exit codes:
126 it cannot be executed; 127 not found; 64 usage; 69 server unreachable at the start; 77 denied.`;

export function registerElect(program: Command): void {
  const command = program
    .command("elect")
    .summary("run a command while leading")
    .description("Stand for election, run a command while leading, stand again after a loss.")
    .usage("[options] NAME [--] COMMAND...")
    .argument("<name>", "the name of the election")
    .argument("[command...]", "the command and its arguments")
    .option("--value <text>", "what to tell everybody about this leader, at most 4 KiB");
  holdOptions(command)
    .addHelpText("after", HELP)
    .action(async (name: string, rest: string[], _flags: ElectFlags, self: Command) => {
      const words = commandWords(self, rest);
      if (words.length === 0) throw usage(self, "there is no command to run");
      const flags = self.opts<ElectFlags>();
      const request = flags.value === undefined ? {} : { metadata: flags.value };
      process.exit(await runElection(taskOf(self, name, words, flags, request)));
    });
}

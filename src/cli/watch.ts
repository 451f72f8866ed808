/** `leasehold watch PREFIX`: what happens to locks, a line for each event. */
import { once } from "node:events";
import { connect, LeaseholdError } from "@leasehold/client";
import { type Command, Option } from "commander";
import { wholeNumber } from "./arguments.js";
import { CliError, DEFAULT_ADDR, exitCode } from "./common.js";
import { type CredentialFlags, connectOptions, credentialOptions } from "./credentials.js";
import { exitCodeFor } from "./sdk-errors.js";
import { eventForJson, eventText } from "./watch-text.js";

interface WatchFlags extends CredentialFlags {
  readonly name?: string;
  readonly after?: number;
  readonly fromNow?: true;
  readonly json?: true;
  readonly addr: string;
}

const HELP = `
It begins with the state: a line for each lock that is held or waited for. The number in each line is the event's
position, a Lamport timestamp; --after continues behind one. When events were missed, because there were too many for
this reader or because the server has no memory of them, that is said and the state follows.

The time of day is this machine's, of the arrival. Ends with SIGINT or SIGTERM, exit code 0.`;

export function registerWatch(program: Command): void {
  const command = program
    .command("watch")
    .summary("tell what happens to locks")
    .description("Tell what happens to all locks whose name begins with a prefix, or to one lock, as it happens.")
    .argument("[prefix]", "only names that begin so (default: all)")
    .option("--name <name>", "only the lock of this name")
    .addOption(new Option("--after <position>", "continue behind this position").argParser(wholeNumber))
    .addOption(new Option("--from-now", "begin without the state").conflicts("after"))
    .option("--json", "print one JSON object a line, for programs")
    .addOption(new Option("--addr <host:port>", "the server").env("LEASEHOLD_ADDR").default(DEFAULT_ADDR))
    .addHelpText("after", HELP);
  credentialOptions(command).action(async (prefix: string | undefined, flags: WatchFlags) => {
    if (prefix !== undefined && flags.name !== undefined) {
      throw new CliError("leasehold watch: give either a prefix or --name, not both", exitCode.usage);
    }
    await watch(flags.name === undefined ? { prefix: prefix ?? "" } : { name: flags.name }, flags);
  });
}

async function watch(target: { name: string } | { prefix: string }, flags: WatchFlags): Promise<void> {
  const stop = new AbortController();
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.once(signal, () => stop.abort());
  try {
    await using client = await connect(flags.addr, connectOptions(flags));
    const options = { after: flags.after, fromNow: flags.fromNow ?? false, signal: stop.signal };
    for await (const event of client.watch(target, options)) {
      const line = flags.json ? `${JSON.stringify(eventForJson(event))}\n` : eventText(event, new Date());
      await write(line, stop.signal);
    }
  } catch (error) {
    if (!stop.signal.aborted) throw failed(error);
  }
}

/** Not faster than it is read: the server is to know that this watcher falls behind, not this process's memory. */
async function write(line: string, signal: AbortSignal): Promise<void> {
  if (!process.stdout.write(line)) await once(process.stdout, "drain", { signal });
}

function failed(error: unknown): unknown {
  if (!LeaseholdError.is(error)) return error;
  return new CliError(error.message, exitCodeFor(error));
}

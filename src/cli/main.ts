#!/usr/bin/env node
/** The command line. A command's module is loaded only when it is used: `leasehold run` must not wait for a store. */
import { Command, CommanderError } from "commander";
import { version } from "../server/version.js";
import { CliError, exitCode } from "./common.js";
import { plain } from "./output.js";

const run = async (program: Command) => (await import("./run.js")).registerRun(program);

const commands: Readonly<Record<string, (program: Command) => Promise<void>>> = {
  run,
  elect: async (program) => (await import("./elect.js")).registerElect(program),
  serve: async (program) => (await import("./serve.js")).registerServe(program),
  locks: async (program) => (await import("./locks.js")).registerLocks(program),
  watch: async (program) => (await import("./watch.js")).registerWatch(program),
  top: async (program) => (await import("./top.js")).registerTop(program),
  release: async (program) => (await import("./release.js")).registerRelease(program),
  status: async (program) => (await import("./status.js")).registerStatus(program),
  token: async (program) => (await import("./token.js")).registerToken(program),
  tick: async (program) => (await import("./tick.js")).registerTick(program),
  doctor: async (program) => (await import("./doctor.js")).registerDoctor(program),
  "log-level": async (program) => (await import("./log-level.js")).registerLogLevel(program),
  backup: async (program) => (await import("./backup.js")).registerBackup(program),
  restore: async (program) => (await import("./restore.js")).registerRestore(program),
  verify: async (program) => (await import("./verify.js")).registerVerify(program),
  sidecar: async (program) => (await import("./sidecar.js")).registerSidecar(program),
};

async function main(args: readonly string[]): Promise<number> {
  const program = new Command("leasehold")
    .description("Locks that stay correct when processes stall: leases, fencing tokens, Lamport timestamps.")
    .version(version)
    .enablePositionalOptions()
    .exitOverride()
    .configureOutput({ outputError: (text, write) => write(oneLine(text)) });
  const [word = ""] = args;
  const register = word === "lock" ? run : Object.hasOwn(commands, word) ? commands[word] : undefined;
  for (const load of register ? [register] : Object.values(commands)) await load(program);
  try {
    await program.parseAsync(args, { from: "user" });
    return Number(process.exitCode ?? exitCode.ok); // a command may have set it
  } catch (error) {
    return report(error);
  }
}

/** commander puts its "did you mean" on a line of its own. */
const oneLine = (text: string) =>
  `${plain(
    text
      .replace(/^error: /, "leasehold: ")
      .trim()
      .replace(/\s*\n\s*/g, " "),
  )}\n`;

function report(error: unknown): number {
  if (error instanceof CommanderError) return error.exitCode === 0 ? exitCode.ok : exitCode.usage;
  if (error instanceof CliError) {
    process.stderr.write(`${error.message}\n`);
    return error.exitCode;
  }
  process.stderr.write(`leasehold: this is a bug\n${error instanceof Error ? error.stack : String(error)}\n`);
  return exitCode.internal;
}

process.stdout.on("error", (error: NodeJS.ErrnoException) => {
  // `leasehold locks | head` is content with what it got.
  if (error.code === "EPIPE") process.exit(exitCode.ok);
  throw error;
});

if (process.env.LEASEHOLD_ADDR === "") delete process.env.LEASEHOLD_ADDR;
process.exitCode = await main(process.argv.slice(2));

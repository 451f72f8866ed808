/**
 * `leasehold serve`: configuration in, a server until a signal says otherwise.
 *
 * The first SIGTERM or SIGINT drains; a second one ends the process at once, as does a drain that takes longer than it
 * may. Nothing is lost then: what was acknowledged is durable.
 *
 * SIGHUP has two meanings by custom. Where there are files that can be read again (certificates, tokens, keys, a policy),
 * it does that and nothing else; where there are none, it is what a terminal sends when it is closed, and drains.
 */
import { constants } from "node:os";
import { type Command, Option } from "commander";
import { options } from "../server/config/catalog.js";
import { formatConfig, loadConfig } from "../server/config/load.js";
import type { ServerConfig } from "../server/config/schema.js";
import { encrypts, reloads } from "../server/config/security.js";
import { createLogger, type Logger } from "../server/log.js";
import type { RunningServer, startServer } from "../server/server.js";
import { CliError, exitCode } from "./common.js";
import { print } from "./output.js";

type StartServer = typeof startServer;

/** How much longer than its limit a drain may take before the process is ended. */
const DRAIN_GRACE_MS = 2_000;

export function registerServe(program: Command): void {
  const command = program.command("serve").description("run a server");
  for (const option of options) {
    const flag = option.argument === "" ? option.flag : `${option.flag} ${option.argument}`;
    const text = `${option.description} Default: ${option.fallback}`;
    command.addOption(new Option(flag, text).helpGroup(option.path.length > 1 ? "Limits:" : "Options:"));
  }
  command
    .option("--config <file>", "A YAML file with options: `listen: …`, below `limits:` those of the limits.")
    .option("--check-config", "Read the files that are named, print the configuration that would be used, and exit.")
    .addHelpText(
      "after",
      "\nEvery option is also an environment variable (--log-level is LEASEHOLD_LOG_LEVEL) and a key of the\n" +
        "configuration file (logLevel). A flag wins over the environment, that over the file.\n" +
        "Durations: 500ms, 15s, 1.5h or milliseconds. Sizes: 64KiB, 1MiB or bytes.",
    )
    .action((flags: Record<string, unknown>) => serve(flags));
}

async function serve(flags: Record<string, unknown>): Promise<void> {
  const result = loadConfig({ flags, env: process.env });
  if (!result.ok) throw new CliError(result.problems.join("\n"), exitCode.config);
  const { config, warnings } = result;
  if (flags.checkConfig === true) {
    for (const warning of warnings) process.stderr.write(`${warning}\n`);
    await checkFilesOf(config);
    print(formatConfig(config));
    return;
  }
  const log = createLogger({ level: config.logLevel });
  for (const warning of warnings) log.warn(warning);
  const { startServer } = await import("../server/server.js");
  process.exit(await runServer(config, log, startServer));
}

async function checkFilesOf(config: ServerConfig): Promise<void> {
  const { checkFiles } = await import("../server/security/security.js");
  try {
    await checkFiles(config);
  } catch (error) {
    if (isUnusableFile(error)) throw new CliError(error.message, exitCode.config);
    throw error;
  }
}

const isUnusableFile = (error: unknown): error is Error => error instanceof Error && error.name === "UnusableFileError";

/** Returns the exit code. */
async function runServer(config: ServerConfig, log: Logger, start: StartServer): Promise<number> {
  const ending = reloads(config) ? (["SIGTERM", "SIGINT"] as const) : (["SIGTERM", "SIGINT", "SIGHUP"] as const);
  const signalled = firstSignal(ending, log);
  let reload = () => {}; // what is being read already need not be read again
  if (reloads(config)) process.on("SIGHUP", () => reload());
  process.on("uncaughtException", (error) => {
    log.fatal({ err: error }, "a bug: the server ends; what was acknowledged is durable");
    process.exit(exitCode.internal);
  });
  let server: RunningServer;
  try {
    server = await start(config, { log });
  } catch (error) {
    const line = forOperators(error);
    if (line === undefined) log.fatal({ err: error }, "cannot start");
    else log.fatal(`cannot start: ${line}`);
    return isUnusableFile(error) ? exitCode.config : exitCode.internal;
  }
  reload = () => {
    log.info("SIGHUP: reading the files of certificates, tokens, keys and policy again");
    void server.reload();
  };
  const { address, opsAddress } = server;
  log.info({ address, opsAddress, store: config.store }, "serving");
  if (opsAddress !== null && !opsAddress.startsWith("unix:")) {
    log.info(`the console is at ${encrypts(config) ? "https" : "http"}://${opsAddress}/console/`);
  }
  log.info(`${await signalled}: draining`);
  return drain(server, config.drainMsMax + DRAIN_GRACE_MS, log);
}

async function drain(server: RunningServer, msMax: number, log: Logger): Promise<number> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<"late">((resolve) => {
    timer = setTimeout(() => resolve("late"), msMax);
  });
  const end = await Promise.race([server.stop().then(() => "stopped" as const), late]);
  clearTimeout(timer);
  if (end === "late") {
    log.error({ msMax }, "draining took too long: the server ends; what was acknowledged is durable");
    return exitCode.internal;
  }
  log.info("stopped");
  return exitCode.ok;
}

/** One line for what an operator can mend; undefined for anything else, which needs its stack. */
function forOperators(error: unknown): string | undefined {
  if (!(error instanceof Error)) return undefined;
  const expected = /^(Journal(Corrupt|Refused)|UnusableFile)Error$/.test(error.name) || "code" in error;
  return expected ? error.message : undefined;
}

function firstSignal(signals: readonly NodeJS.Signals[], log: Logger): Promise<NodeJS.Signals> {
  return new Promise((resolve) => {
    let seen = false;
    for (const signal of signals) {
      process.on(signal, () => {
        if (seen) {
          log.warn(`${signal} again: the server ends at once`);
          process.exit(128 + constants.signals[signal]);
        }
        seen = true;
        resolve(signal);
      });
    }
  });
}

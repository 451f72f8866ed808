/**
 * `leasehold sidecar`: locks over plain HTTP on this machine, for applications of any language. What it does is in
 * src/sidecar/sidecar.ts.
 */
import { constants } from "node:os";
import { connect } from "@leasehold/client";
import { type Command, InvalidArgumentError, Option } from "commander";
import { type Endpoint, isLocal, parseEndpoint } from "../server/config/endpoint.js";
import { parseBytes } from "../server/config/units.js";
import { createLogger, type Logger } from "../server/log.js";
import { version } from "../server/version.js";
import { type RunningSidecar, type SidecarOptions, startSidecar } from "../sidecar/sidecar.js";
import { positive, positiveDuration } from "./arguments.js";
import { CliError, DEFAULT_ADDR, exitCode } from "./common.js";
import { type CredentialFlags, connectOptions, credentialOptions } from "./credentials.js";
import { planFor } from "./run/belief.js";
import { hooksOf, words } from "./run/hooks.js";
import { exitCodeFor } from "./sdk-errors.js";

interface SidecarFlags extends CredentialFlags {
  readonly addr: string;
  readonly listen: Endpoint;
  readonly socketMode: number;
  readonly opsListen?: Endpoint;
  readonly ttl: number;
  readonly owner?: string;
  readonly holds: number;
  readonly stopAfter: number;
  readonly elect?: string;
  readonly value?: string;
  readonly readyWhen: "connected" | "leader";
  readonly onElected?: readonly string[];
  readonly onLost?: readonly string[];
  readonly killAfter: number;
  readonly proxy?: URL;
  readonly lock?: string;
  readonly proxyListen: Endpoint;
  readonly proxyBody: number;
  readonly proxyTimeout: number;
  readonly logLevel: string;
}

const HELP = `
There is no authentication: whoever can connect is trusted. Hence a unix socket (with --socket-mode) or a loopback
address, and nothing else. The page of --ops-listen, with /healthz, /readyz and /metrics only, may listen anywhere.

A COMMAND is the path of a program, or a JSON array of the program and its arguments: '["/bin/notify", "leader"]'. It is
started without a shell and finds LEASEHOLD_TOKEN, LEASEHOLD_LOCK, LEASEHOLD_ADDR and LEASEHOLD_SIDECAR in its
environment. The command of --on-elected is ended when the lead is lost, as the one of leasehold elect is.

The first SIGTERM, SIGINT or SIGHUP stops it in good order, a second one at once. Exit codes: 0 stopped; 64 usage; 70 an
address cannot be had; 77 denied; 78 the server has another store than before.`;

const LEVELS = ["trace", "debug", "info", "warn", "error", "fatal", "silent"];

export function registerSidecar(program: Command): void {
  const command = program
    .command("sidecar")
    .summary("locks over HTTP on this machine, for applications of any language")
    .description("Keep locks for applications beside it, over HTTP on this machine; elect a leader; fence a storage.");
  for (const option of options()) command.addOption(option);
  credentialOptions(command.addHelpText("after", HELP)).action(async (flags: SidecarFlags) => {
    process.exit(await run(flags));
  });
}

function options(): Option[] {
  const local = (text: string, fallback: string) => new Option(text, "").default(endpoint(fallback), fallback);
  const api = [
    new Option("--addr <host:port>", "the server, or several with commas").env("LEASEHOLD_ADDR").default(DEFAULT_ADDR),
    described(local("--listen <address>", "127.0.0.1:7422").argParser(localEndpoint), "unix:PATH or loopback:PORT"),
    new Option("--socket-mode <octal>", "the file mode of unix sockets").default(0o600, "600").argParser(fileMode),
    new Option("--ops-listen <address>", "probes and metrics there as well").argParser(endpoint),
    new Option("--ttl <duration>", "how long locks outlive this process")
      .default(15_000, "15s")
      .argParser(positiveDuration),
    new Option("--owner <text>", "who holds, for people (default: host/pid)"),
    new Option("--holds <n>", "locks held and awaited at the same time").default(10_000).argParser(positive),
    new Option("--stop-after <duration>", "when stopping: how long applications may take to end what they hold")
      .default(5_000, "5s")
      .argParser(positiveDuration),
    new Option("--ready-when <what>", "what /readyz stands for").choices(["connected", "leader"]).default("connected"),
    new Option("--log-level <level>", "how much is logged").choices(LEVELS).default("info"),
  ];
  const elect = [
    new Option("--elect <name>", "stand for election; GET /leader tells who leads"),
    new Option("--value <text>", "what to tell everybody about this leader, at most 4 KiB"),
    new Option("--on-elected <command>", "run while leading").argParser(words),
    new Option("--on-lost <command>", "run after the lead").argParser(words),
    new Option("--kill-after <duration>", "from SIGTERM to SIGKILL").default(3_000, "3s").argParser(positiveDuration),
  ];
  const proxy = [
    new Option("--proxy <url>", "forward HTTP to this storage with the token of --lock").argParser(target),
    new Option("--lock <name>", "the lock of the proxy"),
    described(local("--proxy-listen <address>", "127.0.0.1:7423").argParser(localEndpoint), "where the proxy listens"),
    new Option("--proxy-body <bytes>", "the longest body of a request").default(1_073_741_824, "1GiB").argParser(bytes),
    new Option("--proxy-timeout <duration>", "without a byte in either direction")
      .default(60_000, "60s")
      .argParser(positiveDuration),
  ];
  for (const option of elect) option.helpGroup("Election:");
  for (const option of proxy) option.helpGroup("Fencing proxy:");
  return [...api, ...elect, ...proxy];
}

function described(option: Option, text: string): Option {
  option.description = text;
  return option;
}

function endpoint(text: string): Endpoint {
  const parsed = parseEndpoint(text);
  if (!parsed) throw new InvalidArgumentError("It is neither host:port nor unix:PATH.");
  return parsed;
}

function localEndpoint(text: string): Endpoint {
  const parsed = endpoint(text);
  if (isLocal(parsed)) return parsed;
  throw new InvalidArgumentError("There is no authentication: only unix:PATH and loopback addresses are possible.");
}

function fileMode(text: string): number {
  if (!/^0?[0-7]{3}$/.test(text)) throw new InvalidArgumentError("It is no file mode such as 600 or 660.");
  return Number.parseInt(text, 8);
}

function bytes(text: string): number {
  const size = parseBytes(text);
  if (size === undefined) throw new InvalidArgumentError('It is no size such as "64KiB" or "1GiB".');
  return size;
}

function target(text: string): URL {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (!url || !/^https?:$/.test(url.protocol)) throw new InvalidArgumentError("It is no http: or https: URL.");
  if (url.username !== "" || url.password !== "") {
    throw new InvalidArgumentError("It must not have credentials: other users of this machine could read them.");
  }
  if (url.search !== "" || url.hash !== "") throw new InvalidArgumentError("It must end with the path.");
  return url;
}

const usage = (text: string) => new CliError(`leasehold sidecar: ${text}`, exitCode.usage);

function check(flags: SidecarFlags): void {
  const { elect, value, onElected, onLost, proxy, lock, readyWhen, ttl, killAfter } = flags;
  if (elect === undefined) {
    const needing = { "--value": value, "--on-elected": onElected, "--on-lost": onLost };
    const [needs] = Object.entries(needing).find(([, given]) => given !== undefined) ?? [];
    if (needs !== undefined) throw usage(`${needs} needs --elect NAME`);
    if (readyWhen === "leader") throw usage("--ready-when leader needs --elect NAME");
  }
  if ((proxy === undefined) !== (lock === undefined)) throw usage("--proxy URL and --lock NAME need each other");
  const plan = planFor(ttl, killAfter);
  if (onElected !== undefined && !plan.ok) {
    throw usage(`--ttl is too short to end the command of --on-elected in time: at least ${plan.ttlMsMin}ms`);
  }
  if ((onElected ?? onLost) !== undefined && process.platform === "win32") {
    throw usage("there are no process groups on Windows");
  }
}

function sidecarOptions(flags: SidecarFlags, log: Logger, address: () => string): SidecarOptions {
  const { addr, ttl, owner, elect, value, proxy, lock } = flags;
  const credentials = connectOptions(flags);
  const hooks = hooksOf({ ...flags, name: elect ?? "", address, log });
  return {
    connect: () => connect(addr, { ...credentials, ttl, ...(owner === undefined ? {} : { owner }) }),
    listen: flags.listen,
    socketMode: flags.socketMode,
    opsListen: flags.opsListen ?? null,
    ttlMs: ttl,
    holdsMax: flags.holds,
    stopMsMax: flags.stopAfter,
    elect: elect === undefined ? null : { name: elect, value, hooks },
    proxy:
      proxy === undefined || lock === undefined
        ? null
        : {
            ...{ target: proxy, lock, listen: flags.proxyListen },
            ...{ bodyBytesMax: flags.proxyBody, idleMsMax: flags.proxyTimeout },
          },
    readyWhen: flags.readyWhen,
    version,
    log,
  };
}

/** Returns the exit code. */
async function run(flags: SidecarFlags): Promise<number> {
  check(flags);
  const log = createLogger({ level: flags.logLevel });
  const signalled = firstSignal(log);
  let sidecar: RunningSidecar;
  try {
    sidecar = await startSidecar(sidecarOptions(flags, log, () => sidecar.address));
  } catch (error) {
    if (error instanceof CliError) throw error;
    log.fatal(`cannot start: ${(error as Error).message}`);
    return exitCode.internal;
  }
  const { address, opsAddress, proxyAddress } = sidecar;
  log.info({ address, opsAddress, proxyAddress }, "serving");
  const end = await Promise.race([signalled, sidecar.failed]);
  if (typeof end === "string") log.info(`${end}: stopping`);
  else log.fatal({ code: end.code }, end.message);
  await sidecar.stop();
  log.info("stopped");
  return typeof end === "string" ? exitCode.ok : exitCodeFor(end);
}

function firstSignal(log: Logger): Promise<NodeJS.Signals> {
  return new Promise((resolve) => {
    let seen = false;
    for (const signal of ["SIGTERM", "SIGINT", "SIGHUP"] as const) {
      process.on(signal, () => {
        if (seen) {
          log.warn(`${signal} again: the sidecar ends at once`);
          process.exit(128 + constants.signals[signal]);
        }
        seen = true;
        resolve(signal);
      });
    }
  });
}

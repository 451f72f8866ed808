/**
 * The configuration: this schema is the only place that knows an option's name, default, meaning and permitted values.
 * Flags, environment variables, the keys of the configuration file, the help text and the type are derived from it.
 */
import { z } from "zod";
import { logLevels } from "../log.js";
import { isLocal, parseEndpoint } from "./endpoint.js";
import { checkLimits, limitsSchema } from "./limits.js";
import { choice, duration, endpoint, store, toggle } from "./options.js";
import { authenticates, checkSecurity, encrypts, securityOptions } from "./security.js";
import { formatDurationMs } from "./units.js";

const shape = z.strictObject({
  listen: endpoint("127.0.0.1:7420", "Where clients connect: host:port, [IPv6]:port or unix:PATH."),
  opsListen: endpoint(
    "127.0.0.1:7421",
    'Where the console, /metrics, /healthz and /readyz are served; "none" for nowhere.',
    "none",
  ),
  store: store(
    "level:./leasehold-data",
    "level:PATH keeps everything in a folder; memory: keeps nothing over a restart and is for tests only.",
  ),
  insecure: toggle(
    false,
    "Permit to listen without encryption or authentication on an address that other machines can reach.",
  ),
  ...securityOptions,
  logLevel: choice(
    logLevels,
    "info",
    "Least important message that is logged: trace, debug, info, warn, error, fatal or silent.",
  ),
  drainMsMax: duration(
    10_000,
    0,
    "How long a stopping server waits for its clients before it cuts them off.",
    3_600_000,
  ),
  leadershipMs: duration(
    5_000,
    100,
    "Nothing is granted or renewed unless the store has confirmed a write that was sent less than this ago.",
    3_600_000,
  ),
  tickIntervalMs: duration(1_000, 10, "At least this often something is written to the store.", 3_600_000),
  clockSkewWarnMs: duration(
    500,
    1,
    "A client whose wall clock is off by more than this is named by `leasehold status` and logged. Nothing else follows.",
  ),
  limits: limitsSchema,
});

export const configSchema = shape.check((context) => {
  const config = context.value;
  const refuse = (path: readonly string[], message: string, input: unknown) =>
    context.issues.push({ code: "custom", path: [...path], message, input });

  const listen = parseEndpoint(config.listen);
  const lacking = exposure(config);
  for (const option of ["listen", "opsListen"] as const) {
    const endpoint = parseEndpoint(config[option]);
    if (endpoint === undefined || isLocal(endpoint) || lacking === "" || config.insecure) continue;
    const message =
      `"${config[option]}" can be reached from other machines, and ${lacking}; ` +
      "add --insecure (LEASEHOLD_INSECURE=1) if that network is to be trusted";
    refuse([option], message, config[option]);
  }
  for (const { path, message } of checkSecurity(config)) refuse([path], message, null);
  if (config.opsListen === config.listen && !(listen?.kind === "tcp" && listen.port === 0)) {
    refuse(["opsListen"], `"${config.opsListen}" is taken by listen`, config.opsListen);
  }
  if (config.tickIntervalMs * 2 > config.leadershipMs) {
    refuse(
      ["tickIntervalMs"],
      `${formatDurationMs(config.tickIntervalMs)} is more than half of leadershipMs: an idle server would stop granting`,
      null,
    );
  }
  const limit = checkLimits(config.limits);
  if (limit) refuse(["limits", limit.path], limit.message, null);
});

/** Why this server should not be reached from other machines; "": it may be. */
export function exposure(config: Parameters<typeof checkSecurity>[0]): string {
  if (!encrypts(config)) {
    return authenticates(config)
      ? "the traffic is not encrypted (tlsCert)"
      : "the traffic is neither encrypted (tlsCert) nor authenticated (authTokens, authJwks or tlsClientAuth)";
  }
  return authenticates(config) ? "" : "callers are not authenticated (authTokens, authJwks or tlsClientAuth)";
}

/** The configuration of a server, complete and checked. */
export type ServerConfig = Readonly<Omit<z.output<typeof configSchema>, "limits">> & {
  readonly limits: Readonly<z.output<typeof limitsSchema>>;
};

/** The configuration with nothing set, or with some options set. Throws when that is no valid configuration. */
export function defaultConfig(set: Readonly<Record<string, unknown>> = {}): ServerConfig {
  return configSchema.parse({ limits: {}, ...set });
}

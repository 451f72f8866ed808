/** What the security of a server is made of: its certificates, what callers are known by, and the files of both. */

import type { ServerConfig } from "../config/schema.js";
import { authenticates, encrypts } from "../config/security.js";
import type { Logger } from "../log.js";
import { type Access, openAccess } from "./access.js";
import { AccessControl, type AccessControlOptions } from "./access-control.js";
import { AuditLog, openAudit } from "./audit.js";
import { CredentialAuthenticator } from "./authenticator.js";
import { Certificates } from "./certificates.js";
import { JsonWebTokens } from "./jwt.js";
import type { Allowance } from "./policy.js";
import { PolicyInForce } from "./policy-file.js";
import { type Reloadable, Reloader } from "./reload.js";
import { Tokens } from "./tokens.js";

export interface SecurityHooks {
  readonly log?: Logger | undefined;
  /** How often files are looked at. Only tests replace it. */
  readonly reloadPollMs?: number | undefined;
  /** In ms since 1970, by which credentials expire. Only tests replace it. */
  readonly wallMs?: (() => number) | undefined;
  /** Somebody was refused: for metrics. */
  readonly onRefused?: AccessControlOptions["onRefused"];
}

export class Security {
  /** Null: traffic is not encrypted. */
  readonly certificates: Certificates | null;
  /** Who may do what. */
  readonly access: Access;
  readonly audit: AuditLog;
  /** For other files that are to be read again. */
  readonly reloader: Reloader;
  readonly #items: readonly Reloadable[];

  constructor(config: ServerConfig, hooks: SecurityHooks = {}) {
    const { log, reloadPollMs: pollMs, wallMs = () => Date.now(), onRefused } = hooks;
    const monotonicMs = () => performance.now();
    const sink = openAudit(config.auditLog, (error) => log?.error({ err: error }, "the audit log cannot be written"));
    this.audit = new AuditLog(sink, monotonicMs, wallMs);
    const policy = new PolicyInForce(config.policy, allowanceOf(config), () =>
      this.audit.act({ event: "policy_read", file: config.policy }),
    );
    this.reloader = new Reloader({ log, pollMs });
    this.certificates = encrypts(config) ? new Certificates(config, wallMs) : null;
    let reloaded = () => {};
    const tokens = config.authTokens === "" ? null : new Tokens(config.authTokens, wallMs, () => reloaded());
    const jwts = config.authJwks === "" ? null : new JsonWebTokens(config, wallMs, () => reloaded());
    const accepted = { tokens, jwts, certificates: config.tlsClientAuth !== "none" };
    const authenticator = new CredentialAuthenticator(accepted, wallMs);
    reloaded = () => authenticator.reloaded();
    this.access = authenticates(config)
      ? new AccessControl({
          authenticator,
          policy: () => policy.current,
          audit: this.audit,
          monotonicMs,
          ...(onRefused ? { onRefused } : {}),
        })
      : openAccess;
    const policies = config.policy === "" ? [] : [policy];
    this.#items = [this.certificates, tokens, jwts, ...policies].filter((item) => item !== null);
  }

  /** Reads all files for the first time. Rejects with an `UnusableFileError`. */
  async load(): Promise<void> {
    for (const item of this.#items) await this.reloader.add(item);
  }

  /** Reads all files again, and opens that of the audit log anew, as whoever rotates it asks for. */
  async reload(): Promise<void> {
    this.audit.reopen();
    await this.reloader.reload();
  }

  async stop(): Promise<void> {
    this.reloader.stop();
    await this.audit.close();
  }
}

/** Reads all files that a configuration names, and lets go of them. Rejects with an `UnusableFileError`. */
export async function checkFiles(config: ServerConfig): Promise<void> {
  const security = new Security({ ...config, auditLog: "none" });
  try {
    await security.load();
  } finally {
    await security.stop();
  }
}

function allowanceOf({ limits }: ServerConfig): Allowance {
  return {
    leases: limits.principalLeasesMax,
    locks: limits.principalLocksMax,
    waiters: limits.principalWaitersMax,
    requestsPerSecond: limits.principalRequestsPerSecond,
    requestsBurst: limits.principalRequestsBurst,
  };
}

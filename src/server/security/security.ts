/** What the security of a server is made of: its certificates, what callers are known by, and the files of both. */

import type { ServerConfig } from "../config/schema.js";
import { authenticates, encrypts } from "../config/security.js";
import type { Logger } from "../log.js";
import { type Authenticator, CredentialAuthenticator } from "./authenticator.js";
import { Certificates } from "./certificates.js";
import { JsonWebTokens } from "./jwt.js";
import { type Reloadable, Reloader } from "./reload.js";
import { Tokens } from "./tokens.js";

export interface SecurityHooks {
  readonly log?: Logger | undefined;
  /** How often files are looked at. Only tests replace it. */
  readonly reloadPollMs?: number | undefined;
  /** In ms since 1970, by which credentials expire. Only tests replace it. */
  readonly wallMs?: (() => number) | undefined;
}

export class Security {
  /** Null: traffic is not encrypted. */
  readonly certificates: Certificates | null;
  /** Null: nobody is asked. */
  readonly authenticator: Authenticator | null;
  /** For other files that are to be read again. */
  readonly reloader: Reloader;
  readonly #items: readonly Reloadable[];

  constructor(config: ServerConfig, hooks: SecurityHooks = {}) {
    const { log, reloadPollMs: pollMs, wallMs = () => Date.now() } = hooks;
    this.reloader = new Reloader({ log, pollMs });
    this.certificates = encrypts(config) ? new Certificates(config, wallMs) : null;
    let reloaded = () => {};
    const tokens = config.authTokens === "" ? null : new Tokens(config.authTokens, wallMs, () => reloaded());
    const jwts = config.authJwks === "" ? null : new JsonWebTokens(config, wallMs, () => reloaded());
    const accepted = { tokens, jwts, certificates: config.tlsClientAuth !== "none" };
    const authenticator = new CredentialAuthenticator(accepted, wallMs);
    reloaded = () => authenticator.reloaded();
    this.authenticator = authenticates(config) ? authenticator : null;
    this.#items = [this.certificates, tokens, jwts].filter((item) => item !== null);
  }

  /** Reads all files for the first time. Rejects with an `UnusableFileError`. */
  async load(): Promise<void> {
    for (const item of this.#items) await this.reloader.add(item);
  }

  stop(): void {
    this.reloader.stop();
  }
}

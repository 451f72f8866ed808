/** The options of encryption, authentication, authorisation and audit, and what must hold between them. */
import type { z } from "zod";
import { choice, path, text } from "./options.js";

export const securityOptions = {
  tlsCert: path(
    "The server's certificate and its chain (PEM), for the gRPC port and the ops port; read again when it changes.",
  ),
  tlsKey: path("The key of that certificate (PEM)."),
  tlsClientCa: path("The authorities (PEM) whose client certificates are accepted."),
  tlsClientAuth: choice(
    ["none", "optional", "required"],
    "none",
    "Whether clients show a certificate of those authorities: none, optional or required. Probes never need one.",
    "<mode>",
  ),
  authTokens: path("Bearer tokens that are accepted, hashed; made by `leasehold token`. Read again when it changes."),
  authJwks: path("Keys (a JWKS file) whose JSON Web Tokens are accepted as bearer tokens. Read again when it changes."),
  authJwtIssuer: text("", "Who must have issued such a token."),
  authJwtAudience: text("", "For whom such a token must have been issued."),
  authJwtClaim: text("sub", "The claim of such a token that names its principal."),
  policy: path("Which principal may do what, with which locks, and how much (YAML). Read again when it changes."),
  auditLog: path(
    'Where administrative acts and refusals are written, as JSON lines: a file, "stderr" or "none".',
    ["stderr", "none"],
    "stderr",
  ),
};

type SecurityOptions = { readonly [K in keyof typeof securityOptions]: z.output<(typeof securityOptions)[K]> };

/** Whether callers must say who they are. */
export const authenticates = (config: SecurityOptions): boolean =>
  config.authTokens !== "" || config.authJwks !== "" || config.tlsClientAuth !== "none";

/** Whether traffic is encrypted. */
export const encrypts = (config: SecurityOptions): boolean => config.tlsCert !== "";

/** Whether there are files that a running server reads again, or opens again. */
export const reloads = (config: SecurityOptions): boolean =>
  encrypts(config) || authenticates(config) || !["", "stderr", "none"].includes(config.auditLog);

/** What is wrong, each with the option that is to blame. */
export function checkSecurity(config: SecurityOptions): { readonly path: string; readonly message: string }[] {
  const problems: { path: string; message: string }[] = [];
  const needs = (option: keyof SecurityOptions, needed: keyof SecurityOptions) => {
    if (config[needed] === "") problems.push({ path: option, message: `it needs ${needed} as well` });
  };
  if (config.tlsCert !== "") needs("tlsCert", "tlsKey");
  if (config.tlsKey !== "") needs("tlsKey", "tlsCert");
  if (config.tlsClientCa !== "") needs("tlsClientCa", "tlsCert");
  if (config.tlsClientAuth !== "none") needs("tlsClientAuth", "tlsClientCa");
  else if (config.tlsClientCa !== "") {
    problems.push({
      path: "tlsClientCa",
      message: "it has no effect while tlsClientAuth is none; say optional or required",
    });
  }
  if (config.authJwks !== "") {
    needs("authJwks", "authJwtIssuer");
    needs("authJwks", "authJwtAudience");
    needs("authJwks", "authJwtClaim");
  }
  if (config.policy !== "" && !authenticates(config)) {
    const message =
      "a policy is about principals, and nobody is authenticated; set authTokens, authJwks or tlsClientAuth";
    problems.push({ path: "policy", message });
  }
  return problems;
}

import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { ServerProcess, temporaryFolder } from "../e2e/support.js";
import { leasehold } from "./support.js";

/** A server whose policy lets its one principal acquire what begins with "app/", and nothing else. */
export async function acquireOnly() {
  const folder = await temporaryFolder();
  const [tokens, own, policy, auditLog] = ["tokens", "own", "policy.yaml", "audit"].map((name) => join(folder, name));
  const { stdout } = await leasehold(["token", "new", "app", "--file", tokens as string]);
  writeFileSync(own as string, stdout, { mode: 0o600 });
  writeFileSync(policy as string, "rules: [{ principal: token/app, prefix: app/, verbs: [acquire] }]\n");
  const files = ["--auth-tokens", tokens, "--policy", policy, "--audit-log", auditLog] as string[];
  const server = await ServerProcess.start("memory:", ...files);
  /** What was refused, and why. */
  const denied = () =>
    readFileSync(auditLog as string, "utf8")
      .split("\n")
      .filter((line) => line.includes('"denied"'));
  return { server, credentials: ["--auth-token-file", own as string], denied };
}

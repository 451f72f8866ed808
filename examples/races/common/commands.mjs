/** Commands as an operator would type them, run for real. */
import { fileURLToPath } from "node:url";
import { run } from "../../../test/services/processes.mjs";

const CLI = fileURLToPath(new URL("../../../dist/cli/main.js", import.meta.url));

/**
 * `npx leasehold …` against a server, printed by `diagnose`. Returns what it printed.
 *
 * @param {{ address: string }} server
 * @param {string[]} args
 * @param {(command: string, output: string) => void} diagnose
 */
export async function leaseholdCommand({ address }, args, diagnose) {
  const all = [...args, "--addr", address];
  const output = await run([process.execPath, CLI, ...all]);
  diagnose(`npx leasehold ${all.join(" ")}`, output);
  return output;
}

import { execFileSync } from "node:child_process";
import { fileURLToPath } from "node:url";

/** Tests that start real processes run the compiled program, so it is compiled before the first of them. */
export default function setup(): void {
  const script = fileURLToPath(new URL("../scripts/build.mjs", import.meta.url));
  execFileSync(process.execPath, [script], { stdio: "inherit" });
}

import { execFileSync } from "node:child_process";
import { fileURLToPath } from "node:url";

/** Tests that start real processes run the compiled program, so it is compiled before the first of them. */
export default function setup(): void {
  const root = fileURLToPath(new URL("..", import.meta.url));
  execFileSync("npx", ["tsc", "-b"], { cwd: root, stdio: "inherit" });
}

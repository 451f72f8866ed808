// Compiles everything and puts the generated JavaScript, which the compiler does not touch, beside its importers.
import { execFileSync } from "node:child_process";
import { cpSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("..", import.meta.url));
cpSync(join(root, "src/client/wire/gen"), join(root, "src/client/dist/wire/gen"), { recursive: true });
try {
  execFileSync(process.execPath, [join(root, "node_modules/typescript/bin/tsc"), "-b"], {
    cwd: root,
    stdio: "inherit",
  });
} catch {
  process.exitCode = 1; // the compiler has said why
}

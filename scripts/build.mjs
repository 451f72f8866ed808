// Compiles everything and puts the generated JavaScript, which the compiler does not touch, beside its importers.
import { spawnSync } from "node:child_process";
import { chmodSync, cpSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("..", import.meta.url));
cpSync(join(root, "src/client/wire/gen"), join(root, "src/client/dist/wire/gen"), { recursive: true });
cpSync(join(root, "src/server/ops/console"), join(root, "dist/server/ops/console"), { recursive: true });
const { status } = spawnSync(process.execPath, [join(root, "node_modules/typescript/bin/tsc"), "-b"], {
  cwd: root,
  stdio: "inherit",
});
if (status !== 0)
  process.exitCode = 1; // the compiler has said why
else chmodSync(join(root, "dist/cli/main.js"), 0o755); // in a clone, npx starts it as it stands

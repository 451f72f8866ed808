import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { defineConfig } from "vitest/config";

/** The fence kit's entry points as its manifest names them, and their sources. */
function fences(): [name: string, path: string][] {
  const manifest = JSON.parse(readFileSync(here("./src/fence/package.json"), "utf8")) as {
    exports: Record<string, { default?: string }>;
  };
  return Object.entries(manifest.exports).flatMap(([name, { default: path }]) =>
    path?.startsWith("./dist/") && name !== "." ? [[name.slice(2), path.slice(7).replace(/js$/, "ts")]] : [],
  );
}

const here = (path: string) => fileURLToPath(new URL(path, import.meta.url));

export default defineConfig({
  resolve: {
    alias: [
      { find: /^@leasehold\/fence$/, replacement: here("./src/fence/index.ts") },
      ...fences().map(([name, path]) => ({
        find: `@leasehold/fence/${name}`,
        replacement: here(`./src/fence/${path}`),
      })),
      { find: "@leasehold/client/wire", replacement: here("./src/client/wire/index.ts") },
      { find: "@leasehold/client", replacement: here("./src/client/index.ts") },
    ],
  },
  test: {
    include: ["test/**/*.test.ts"],
    globalSetup: ["test/global-setup.ts"],
    pool: "forks",
    // More than a small machine has processors: many tests wait for processes, and for clocks that nobody can move.
    maxWorkers: 4,
    testTimeout: 60_000,
    hookTimeout: 60_000,
  },
});

/** The mechanical rules of this code base, as an ordinary test. */
import { readdirSync, readFileSync } from "node:fs";
import { join, relative, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, test } from "vitest";

const root = fileURLToPath(new URL("..", import.meta.url));

function sources(folder: string): string[] {
  return readdirSync(join(root, folder), { withFileTypes: true, recursive: true })
    .filter((entry) => entry.isFile() && /\.(ts|mjs|js)$/.test(entry.name) && !entry.name.endsWith(".d.ts"))
    .map((entry) => relative(root, join(entry.parentPath, entry.name)))
    .filter((path) => !/(^|\/)(dist|gen|node_modules)\//.test(path));
}

const read = (path: string) => readFileSync(join(root, path), "utf8");

/** The module specifiers that a file imports from, relative ones resolved to a path from the root. */
function imports(path: string): string[] {
  const specifiers = [...read(path).matchAll(/^(?:import|export)\b[^;]*?\bfrom "([^"]+)"|\bimport\("([^"]+)"\)/gm)];
  return specifiers.map((match) => {
    const specifier = (match[1] ?? match[2]) as string;
    return specifier.startsWith(".") ? relative(root, resolve(root, path, "..", specifier)) : specifier;
  });
}

describe("what may import what", () => {
  test.each(sources("src/server/core"))("%s imports nothing outside the core", (path) => {
    expect(imports(path).filter((specifier) => !specifier.startsWith("src/server/core/"))).toEqual([]);
  });

  test.each(sources("src/client"))("%s imports only the client, Node and its two packages", (path) => {
    const permitted = /^(src\/client\/|node:|@grpc\/grpc-js$|protobufjs\/minimal\.js$)/;
    expect(imports(path).filter((specifier) => !permitted.test(specifier))).toEqual([]);
  });

  test.each(sources("src/fence"))("%s imports only the fence kit and Node", (path) => {
    expect(imports(path).filter((specifier) => !/^(src\/fence\/|node:)/.test(specifier))).toEqual([]);
  });

  test("only the codec imports protobufjs", () => {
    const importers = sources("src").filter((path) => imports(path).some((specifier) => /^protobufjs/.test(specifier)));
    expect(importers).toEqual(["src/client/wire/pb.ts"]);
  });
});

describe("the core is pure", () => {
  test.each(sources("src/server/core"))("%s reads no clock, sets no timer and draws no random number", (path) => {
    const code = read(path).replace(/\/\*[\s\S]*?\*\/|\/\/.*$/gm, "");
    expect(
      code.match(
        /\b(Date|performance|setTimeout|setInterval|setImmediate|queueMicrotask|Promise|process)\b|Math\.random/,
      ),
    ).toBeNull();
  });
});

test("the version is the same everywhere", () => {
  const { version } = JSON.parse(read("package.json")) as { version: string };
  expect(JSON.parse(read("src/client/package.json"))).toMatchObject({ version });
  expect(JSON.parse(read("src/fence/package.json"))).toMatchObject({ version });
  expect(read("src/client/connect.ts")).toContain(`const VERSION = "${version}";`);
  expect(read("CHANGELOG.md")).toContain(`## [${version}]`);
});

describe("files", () => {
  test.each(sources("src"))("%s holds one idea: at most 400 lines", (path) => {
    expect(read(path).split("\n").length).toBeLessThanOrEqual(401);
  });

  test.each([...sources("src"), ...sources("test"), ...sources("bench"), ...sources("examples")])(
    "%s leaves nothing unfinished or switched off",
    (path) => {
      if (path === "test/tidy.test.ts") return;
      expect(
        read(path).match(/\b(TODO|FIXME|XXX|HACK)\b|@ts-(ignore|nocheck)|\bas any\b|\b(test|it|describe)\.only\(/),
      ).toBeNull();
    },
  );
});

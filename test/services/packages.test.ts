/** How missing services are installed, with an apt-get that only writes down what it is asked. */
import { execFile, execFileSync } from "node:child_process";
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { describe, expect, onTestFinished, test } from "vitest";
import { need, type thisMachine } from "./packages.mjs";

type Machine = ReturnType<typeof thisMachine>;

function executable(file: string, script: string): void {
  writeFileSync(file, `#!/bin/sh\n${script}\n`);
  chmodSync(file, 0o755);
}

const hasFlock = (() => {
  try {
    return execFileSync("flock", ["--version"]).length > 0;
  } catch {
    return false; // macOS, where nothing is installed by us
  }
})();

/**
 * A machine with nothing on its PATH but an apt-get, which installs redis-server at its `succeedsAt`-th call; several
 * `processes` are expected to need it.
 */
function machine(changes: Partial<Machine> = {}, { succeedsAt = 1, processes = 1 } = {}) {
  const folder = mkdtempSync(join(tmpdir(), "packages-"));
  onTestFinished(() => rmSync(folder, { recursive: true, force: true }));
  const at = (name: string) => join(folder, name);
  mkdirSync(at("bin"));
  executable(
    at("bin/apt-get"),
    `
    echo "$DEBIAN_FRONTEND $*; policy $([ -x ${at("policy")} ] && sh ${at("policy")}; echo $?)" >>${at("calls")}
    # Slow as a download: until all processes have missed the program, and time enough for those that do not wait.
    while [ ${processes} -gt 1 ] && [ "$(wc -l <${at("said")})" -lt ${processes} ]; do sleep 0.02; done
    case "$*" in *install*) [ ${processes} -gt 1 ] && sleep 0.5 ;; *) exit 0 ;; esac
    echo x >>${at("installs")}
    if [ "$(wc -l <${at("installs")})" -lt ${succeedsAt} ]; then echo "E: 503 from the mirror" >&2; exit 100; fi
    printf '#!/bin/sh\\n' >${at("bin/redis-server")}; chmod 755 ${at("bin/redis-server")}`,
  );
  executable(at("bin/dpkg-query"), `[ -e ${at("bin/redis-server")} ] && echo installed`);
  const said: string[] = [];
  const made: Machine = {
    path: [at("bin")],
    debian: true,
    root: true,
    policyFile: at("policy"),
    lockFile: at("lock"),
    env: { ...process.env, PATH: `${at("bin")}:${process.env.PATH}` },
    ownPlaces: false,
    say: (line) => said.push(line),
    ...changes,
  };
  const calls = () => (existsSync(at("calls")) ? readFileSync(at("calls"), "utf8").trim().split("\n") : []);
  return { made, said, calls, at };
}

describe("a program that is there", () => {
  test("is found on the PATH, also under its other name, and nothing is installed", async () => {
    const { made, said, calls, at } = machine();
    executable(at("bin/valkey-server"), "");
    expect(await need("redis-server", made)).toBe(at("bin/valkey-server"));
    executable(at("bin/redis-server"), "");
    expect(await need("redis-server", made)).toBe(at("bin/redis-server"));
    expect(said).toEqual([]);
    expect(calls()).toEqual([]);
  });

  test("is not a file that cannot be executed", async () => {
    const { made, at } = machine({ root: false });
    writeFileSync(at("bin/redis-server"), "");
    await expect(need("redis-server", made)).rejects.toThrow("is not on the PATH");
  });
});

describe("a program that is missing", () => {
  test.each([
    ["where we are not root", { root: false }],
    ["where there is no Debian", { debian: false }],
  ])("%s: the error says what to install, and how to do without", async (_, changes) => {
    const { made, said, calls } = machine(changes);
    const error = await need("redis-server", made).catch((reason: Error) => reason);
    expect(String(error)).toContain("redis-server is not on the PATH");
    for (const words of ["apt-get install redis-server", "dnf install valkey", "brew install redis"]) {
      expect(String(error)).toContain(words);
    }
    expect(String(error)).toContain("LEASEHOLD_TEST_SERVICES=skip");
    expect(said).toEqual([]);
    expect(calls()).toEqual([]);
  });

  test.runIf(hasFlock)("is installed on Debian as root, and no daemon is started by that", async () => {
    const { made, said, calls, at } = machine();
    expect(await need("redis-server", made)).toBe(at("bin/redis-server"));
    const options = "-o DPkg::Lock::Timeout=300";
    expect(calls()).toEqual([
      `noninteractive -q ${options} update; policy 101`,
      `noninteractive -q -y ${options} install --no-install-recommends redis-server; policy 101`,
    ]);
    expect(existsSync(made.policyFile)).toBe(false);
    expect(said).toEqual([
      "installing redis-server (apt-get) because redis-server is not on the PATH",
      "installed redis-server",
    ]);
  });

  test.runIf(hasFlock)("leaves a policy alone that was there before", async () => {
    const { made, calls, at } = machine();
    executable(at("policy"), "exit 77");
    await need("redis-server", made);
    expect(calls()[1]).toContain("policy 77");
    expect(readFileSync(at("policy"), "utf8")).toContain("exit 77");
  });

  test.runIf(hasFlock)("is tried once more when apt-get fails", async () => {
    const { made, said, at } = machine({}, { succeedsAt: 2 });
    expect(await need("redis-server", made)).toBe(at("bin/redis-server"));
    expect(said[1]).toBe("apt-get failed, trying once more (100: E: 503 from the mirror)");
  });

  test.runIf(hasFlock)("is given up after that, with apt-get's words, and for all that need it", async () => {
    const { made, calls } = machine({}, { succeedsAt: 9 });
    await expect(need("redis-server", made)).rejects.toThrow("503 from the mirror");
    await expect(need("redis-server", made)).rejects.toThrow("LEASEHOLD_TEST_SERVICES=skip");
    expect(calls().filter((call) => call.includes("install"))).toHaveLength(2);
    expect(existsSync(made.policyFile)).toBe(false);
  });

  test.runIf(hasFlock)("is installed once when several processes miss it at the same time", async () => {
    const { made, calls, at } = machine({}, { processes: 3 });
    const { say: _, ...plain } = made;
    writeFileSync(
      at("child.mjs"),
      `import { appendFileSync } from "node:fs";
       const { need } = await import(${JSON.stringify(new URL("packages.mjs", import.meta.url).href)});
       const say = (line) => appendFileSync(${JSON.stringify(at("said"))}, line + "\\n");
       await need("redis-server", { ...${JSON.stringify(plain)}, say });`,
    );
    await Promise.all([1, 2, 3].map(() => promisify(execFile)(process.execPath, [at("child.mjs")])));
    expect(readFileSync(at("said"), "utf8").match(/installing/g)).toHaveLength(3);
    expect(calls().filter((call) => call.includes("install"))).toHaveLength(1);
  });
});

import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { options } from "../../src/server/config/catalog.js";
import { isLocal, parseEndpoint } from "../../src/server/config/endpoint.js";
import { formatConfig, loadConfig } from "../../src/server/config/load.js";
import { nearest } from "../../src/server/config/nearest.js";
import { defaultConfig, type ServerConfig } from "../../src/server/config/schema.js";
import { formatBytes, formatDurationMs, parseBytes, parseDurationMs } from "../../src/server/config/units.js";
import { rpcLimitDefaults, watchLimitDefaults } from "../../src/server/rpc/limits.js";

let folder: string;
let files = 0;

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "leasehold-config-"));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

function file(text: string): string {
  const path = join(folder, `${++files}.yaml`);
  writeFileSync(path, text);
  return path;
}

function good(sources: Parameters<typeof loadConfig>[0]): ServerConfig {
  const result = loadConfig(sources);
  if (!result.ok) throw new Error(result.problems.join("\n"));
  return result.config;
}

function bad(sources: Parameters<typeof loadConfig>[0]): readonly string[] {
  const result = loadConfig(sources);
  if (result.ok) throw new Error("was accepted");
  return result.problems;
}

describe("defaults", () => {
  it("are the documented ones", () => {
    const config = good({});
    expect(config).toMatchObject({
      listen: "127.0.0.1:7420",
      opsListen: "127.0.0.1:7421",
      store: "level:./leasehold-data",
      insecure: false,
      logLevel: "info",
      drainMsMax: 10_000,
      leadershipMs: 5_000,
      tickIntervalMs: 1_000,
    });
    expect(config.limits).toMatchObject({
      nameBytesMax: 512,
      metadataBytesMax: 4_096,
      ttlMsMin: 500,
      ttlMsMax: 86_400_000,
    });
    expect(config.limits).toMatchObject({
      holdersPerLockMax: 10_000,
      locksPerAcquireMax: 64,
      permitLimitMax: 10_000,
      contenderBytesMax: 128,
      heldTokensMax: 64,
      lockDelayMsMax: 86_400_000,
      maxHoldMsMax: 86_400_000,
      forceMessageBytesMax: 256,
      deadlockSearchMax: 10_000,
      blockerHopsMax: 32,
    });
    expect(config.limits).toMatchObject({ ...rpcLimitDefaults, topDefault: 10, topMax: 100 });
    expect(config.limits).toMatchObject(watchLimitDefaults);
    expect(watchLimitDefaults).toEqual({
      watchersMax: 1_000,
      watchHistoryEventsMax: 65_536,
      watchHistoryBytesMax: 67_108_864,
      watcherQueueEventsMax: 10_000,
    });
    expect(defaultConfig()).toEqual(config);
  });

  it("are described, every one of them", () => {
    expect(options.length).toBeGreaterThan(20);
    for (const option of options) {
      expect(option.description, option.key).toMatch(/^[A-Zl].*\.$/);
      expect(option.flag, option.key).toMatch(/^--[a-z-]+$/);
      expect(option.fallback, option.key).not.toBe("");
    }
    expect(new Set(options.map((option) => option.flag)).size).toBe(options.length);
    expect(options.find((option) => option.key === "limits.nameBytesMax")).toMatchObject({
      flag: "--limits-name-bytes-max",
      attribute: "limitsNameBytesMax",
      variable: "LEASEHOLD_LIMITS_NAME_BYTES_MAX",
      fallback: "512B",
    });
  });
});

/** All options that need each other. */
const secured = {
  ...{
    LEASEHOLD_TLS_CERT: "x",
    LEASEHOLD_TLS_KEY: "x",
    LEASEHOLD_TLS_CLIENT_CA: "x",
    LEASEHOLD_TLS_CLIENT_AUTH: "optional",
  },
  ...{ LEASEHOLD_AUTH_JWKS: "x", LEASEHOLD_AUTH_JWT_ISSUER: "x", LEASEHOLD_AUTH_JWT_AUDIENCE: "x" },
};

describe("sources", () => {
  it("takes every option from a flag, from the environment and from a file", () => {
    const texts: Record<string, string> = { logLevel: "debug", tlsClientAuth: "required" };
    for (const option of options) {
      const given = option.argument === "" ? "true" : option.fallback;
      const text = texts[option.key] ?? (given === "(none)" ? "other" : given);
      const others = Object.fromEntries(Object.entries(secured).filter(([name]) => name !== option.variable));
      const fromFlag = good({ flags: { [option.attribute]: text }, env: others });
      const fromEnv = good({ env: { ...others, [option.variable]: text } });
      const [outer = "", inner] = option.path;
      const fromFile = good({
        flags: { config: file(inner ? `${outer}:\n  ${inner}: ${text}\n` : `${outer}: "${text}"\n`) },
        env: others,
      });
      expect(fromEnv, option.key).toEqual(fromFlag);
      expect(fromFile, option.key).toEqual(fromFlag);
    }
  });

  it("prefers a flag over the environment over the file over the default", () => {
    const path = file("logLevel: trace\nlimits:\n  locksMax: 5\n  nameBytesMax: 1KiB\n");
    const flags: Record<string, string> = { config: path };
    const env: Record<string, string> = {};
    expect(good({ flags, env }).logLevel).toBe("trace");
    env.LEASEHOLD_LOG_LEVEL = "debug";
    env.LEASEHOLD_LIMITS_LOCKS_MAX = "6";
    expect(good({ flags, env })).toMatchObject({ logLevel: "debug", limits: { locksMax: 6, nameBytesMax: 1_024 } });
    flags.logLevel = "warn";
    flags.limitsLocksMax = "7";
    expect(good({ flags, env })).toMatchObject({ logLevel: "warn", limits: { locksMax: 7, nameBytesMax: 1_024 } });
  });

  it("finds the file through the environment too, and takes an empty file or variable for none", () => {
    const path = file("logLevel: error\nlimits:\n");
    expect(good({ env: { LEASEHOLD_CONFIG: path, LEASEHOLD_LISTEN: "" } })).toEqual(
      defaultConfig({ logLevel: "error" }),
    );
    expect(good({ flags: { config: file("") } })).toEqual(defaultConfig());
  });

  it("prints a configuration that yields itself", () => {
    const config = good({ env: { LEASEHOLD_LIMITS_TTL_MS_DEFAULT: "1500ms", LEASEHOLD_OPS_LISTEN: "none" } });
    const text = formatConfig(config);
    expect(text).toContain("ttlMsDefault: 1500ms");
    expect(good({ flags: { config: file(text) } })).toEqual(config);
  });
});

describe("a wrong value is one line that names its place", () => {
  const cases: readonly [Record<string, string>, string][] = [
    [{ listen: "foo" }, '--listen: "foo" is not host:port'],
    [{ listen: "localhost:70000" }, '--listen: "localhost:70000" is not host:port'],
    [{ listen: "1.2.3:80" }, '--listen: "1.2.3:80" is not host:port'],
    [{ listen: "::1:80" }, '--listen: "::1:80" is not host:port'],
    [{ listen: "unix:" }, '--listen: "unix:" is not unix:PATH (107 bytes at most)'],
    [{ opsListen: "no" }, '--ops-listen: "no" is not host:port and not "none"'],
    [{ opsListen: "127.0.0.1:7420" }, '--ops-listen: "127.0.0.1:7420" is taken by listen'],
    [{ store: "redis:" }, '--store: unknown store "redis:": known stores are level:DIRECTORY and memory:'],
    [{ store: "level:" }, '--store: store "level" needs a directory, as in level:./leasehold-data'],
    [{ logLevel: "loud" }, '--log-level: "loud" is not one of trace, debug, info, warn, error, fatal, silent'],
    [{ insecure: "maybe" }, '--insecure: "maybe" is not true or false'],
    [{ drainMsMax: "soon" }, '--drain-ms-max: "soon" is not a duration ("15s", or milliseconds)'],
    [{ drainMsMax: "2h" }, '--drain-ms-max: "2h" is not between 0ms and 1h'],
    [{ limitsNameBytesMax: "0" }, '--limits-name-bytes-max: "0" is not between 1B and 4KiB'],
    [{ limitsNameBytesMax: "big" }, '--limits-name-bytes-max: "big" is not a size ("64KiB", or bytes)'],
    [{ limitsLocksMax: "-1" }, '--limits-locks-max: "-1" is not a whole number'],
    [{ limitsLocksMax: "1.5" }, '--limits-locks-max: "1.5" is not a whole number'],
    [{ limitsLocksMax: "0" }, '--limits-locks-max: "0" is not between 1 and 100000000'],
    [{ limitsTtlMsMin: "48h" }, "--limits-ttl-ms-min: 48h is longer than limits.ttlMsMax, 24h"],
    [
      { limitsTtlMsDefault: "100ms" },
      "--limits-ttl-ms-default: 100ms is not between limits.ttlMsMin and ttlMsMax, 500ms and 24h",
    ],
    [{ limitsTtlMsMin: "1h" }, "limits.ttlMsDefault: 15s is not between limits.ttlMsMin and ttlMsMax, 1h and 24h"],
    [
      { limitsFrameBytesMax: "512KiB" },
      "limits.listBytesMax: 512KiB is more than half of limits.frameBytesMax, 512KiB",
    ],
    [
      { limitsFrameBytesMax: "64KiB", limitsListBytesMax: "32KiB", limitsPermitLimitMax: "20000" },
      "--limits-permit-limit-max: the slots of 20000 permits may fill more than half of limits.frameBytesMax, 64KiB",
    ],
    [{ limitsTopDefault: "11", limitsTopMax: "10" }, "--limits-top-default: 11 is more than limits.topMax, 10"],
    [
      { tickIntervalMs: "4s" },
      "--tick-interval-ms: 4s is more than half of leadershipMs: an idle server would stop granting",
    ],
    [
      { listen: "0.0.0.0:7420" },
      '--listen: "0.0.0.0:7420" can be reached from other machines, and the traffic is neither encrypted (tlsCert) nor authenticated (authTokens, authJwks or tlsClientAuth); add --insecure (LEASEHOLD_INSECURE=1) if that network is to be trusted',
    ],
    [
      { opsListen: "0.0.0.0:7421", authTokens: "x" },
      '--ops-listen: "0.0.0.0:7421" can be reached from other machines, and the traffic is not encrypted (tlsCert); add --insecure (LEASEHOLD_INSECURE=1) if that network is to be trusted',
    ],
    [
      { listen: "0.0.0.0:7420", tlsCert: "x", tlsKey: "x" },
      '--listen: "0.0.0.0:7420" can be reached from other machines, and callers are not authenticated (authTokens, authJwks or tlsClientAuth); add --insecure (LEASEHOLD_INSECURE=1) if that network is to be trusted',
    ],
    [{ tlsCert: "x" }, "--tls-cert: it needs tlsKey as well"],
    [{ tlsKey: "x" }, "--tls-key: it needs tlsCert as well"],
    [{ tlsCert: "x", tlsKey: "x", tlsClientAuth: "required" }, "--tls-client-auth: it needs tlsClientCa as well"],
    [
      { tlsCert: "x", tlsKey: "x", tlsClientCa: "x" },
      "--tls-client-ca: it has no effect while tlsClientAuth is none; say optional or required",
    ],
    [{ authJwks: "x", authJwtIssuer: "x" }, "--auth-jwks: it needs authJwtAudience as well"],
    [{ config: "/does/not/exist.yaml" }, '--config: cannot read "/does/not/exist.yaml" (ENOENT)'],
  ];
  for (const [flags, line] of cases) {
    it(line, () => expect(bad({ flags })).toEqual([line]));
  }

  it("and each of several mistakes has its line", () => {
    const path = file("drainMsMax: x\n");
    expect(
      bad({ flags: { listen: "a", config: path }, env: { LEASEHOLD_LOG_LEVEL: "b", LEASEHOLD_LISTEN: "c" } }),
    ).toEqual([
      '--listen: "a" is not host:port',
      'LEASEHOLD_LOG_LEVEL: "b" is not one of trace, debug, info, warn, error, fatal, silent',
      `${path}: drainMsMax: "x" is not a duration ("15s", or milliseconds)`,
    ]);
  });

  it("also when it is long, or has control characters", () => {
    const [line = ""] = bad({ env: { LEASEHOLD_LISTEN: `\n\u001b[31m${"x".repeat(1_000)}` } });
    expect(line.length).toBeLessThan(130);
    expect(line).toContain("\\n\\u001b[31mxxx");
    expect(bad({ flags: { store: "a\n\u009b\u202eb" } })[0]).toContain('"a\\u000a\\u009b\\u202eb"');
  });
});

describe("a file", () => {
  const cases: readonly [string, string][] = [
    ["lisen: x", ': unknown option "lisen"; did you mean listen?'],
    ["ops_listen: x", ': unknown option "ops_listen"; did you mean opsListen?'],
    ["limits:\n  nameByteMax: 5", ': unknown option "limits.nameByteMax"; did you mean limits.nameBytesMax?'],
    ["zzzzzzzzzzzzzzzzzzzzzzzz: x", ': unknown option "zzzzzzzzzzzzzzzzzzzzzzzz"'],
    ["__proto__: x", ': unknown option "__proto__"'],
    ["limits: 5", ': limits: is not a list of "option: value" lines'],
    ["- a\n- b", ': is not a list of "option: value" lines'],
    ["listen: [1, 2]", ": listen: [1,2] is not host:port"],
    ["listen:", ": listen: null is not host:port"],
    ["limits: { locksMax: yes }", ': limits.locksMax: "yes" is not a whole number'],
  ];
  for (const [text, line] of cases) {
    it(`with ${JSON.stringify(text)}`, () => {
      const path = file(text);
      expect(bad({ flags: { config: path } })).toEqual([path + line]);
    });
  }

  it("that is no YAML names the line", () => {
    const path = file("logLevel: info\nlisten: [\n");
    const problems = bad({ flags: { config: path } });
    expect(problems).toHaveLength(1);
    expect(problems[0]).toMatch(/\.yaml:\d+: /);
    expect(problems[0]).not.toContain("\n");
    expect(bad({ flags: { config: file("store: a\nstore: b\n") } })[0]).toMatch(/\.yaml:2: Map keys must be unique/);
  });
});

describe("a listen address that other machines can reach", () => {
  it("needs --insecure, from whichever source", () => {
    for (const listen of ["0.0.0.0:1", "[::]:1", "192.168.1.5:1", "example.com:1"]) {
      expect(bad({ flags: { listen } })[0]).toContain("add --insecure");
      expect(good({ flags: { listen, insecure: true } }).listen).toBe(listen);
      expect(good({ flags: { listen }, env: { LEASEHOLD_INSECURE: "1" } }).listen).toBe(listen);
    }
    for (const listen of ["127.0.0.1:0", "127.8.8.8:1", "[::1]:1", "localhost:1", "unix:/tmp/x.sock"]) {
      expect(good({ flags: { listen } }).listen).toBe(listen);
    }
  });
});

describe("environment variables that mean nothing", () => {
  it("are pointed out, except those that belong to others", () => {
    const result = loadConfig({
      env: {
        LEASEHOLD_LISTN: "x",
        LEASEHOLD_ADDR: "x",
        LEASEHOLD_TOKEN: "1",
        LEASEHOLD_PORT: "tcp://10.0.0.1:7420",
        LEASEHOLD_PORT_7420_TCP_ADDR: "10.0.0.1",
        LEASEHOLD_SERVICE_HOST: "10.0.0.1",
        HOME: "/root",
      },
    });
    expect(result).toMatchObject({
      ok: true,
      warnings: ["the environment variable LEASEHOLD_LISTN has no meaning; did you mean LEASEHOLD_LISTEN?"],
    });
  });
});

describe("units", () => {
  it("reads durations", () => {
    const good: [unknown, number][] = [
      ["15s", 15_000],
      ["500ms", 500],
      ["1.5h", 5_400_000],
      ["0.1s", 100],
      [7, 7],
      ["7", 7],
      [" 2m ", 120_000],
      ["1d", 86_400_000],
    ];
    for (const [raw, ms] of good) expect(parseDurationMs(raw), String(raw)).toBe(ms);
    for (const raw of [
      "",
      "s",
      "-1s",
      "1.5",
      "1,5s",
      "5 parsecs",
      "1e3",
      Number.NaN,
      -1,
      1.5,
      null,
      "0.0001s",
      "5constructor",
    ]) {
      expect(parseDurationMs(raw), String(raw)).toBeUndefined();
    }
  });

  it("reads sizes", () => {
    const good: [unknown, number][] = [
      ["1MiB", 1_048_576],
      ["1MB", 1_000_000],
      ["64KiB", 65_536],
      ["512", 512],
      [512, 512],
      ["0.5KiB", 512],
    ];
    for (const [raw, size] of good) expect(parseBytes(raw), String(raw)).toBe(size);
    for (const raw of ["1mib", "x", "0.3B", "1 s"]) expect(parseBytes(raw), raw).toBeUndefined();
  });

  it("writes what it reads", () => {
    for (const ms of [0, 1, 500, 1_000, 1_500, 60_000, 86_400_000])
      expect(parseDurationMs(formatDurationMs(ms))).toBe(ms);
    for (const size of [0, 1, 1_000, 1_024, 1_048_576, 3 * 1_073_741_824])
      expect(parseBytes(formatBytes(size))).toBe(size);
  });
});

describe("endpoints", () => {
  it("are parsed", () => {
    expect(parseEndpoint("[::1]:80")).toEqual({ kind: "tcp", host: "::1", port: 80 });
    expect(parseEndpoint("unix:///run/l.sock")).toEqual({ kind: "unix", path: "/run/l.sock" });
    expect(parseEndpoint(`unix:/${"x".repeat(200)}`)).toBeUndefined();
    expect(parseEndpoint("[::g]:80")).toBeUndefined();
    expect(parseEndpoint("a b:80")).toBeUndefined();
    expect(isLocal({ kind: "tcp", host: "127.evil.com", port: 1 })).toBe(false);
  });
});

describe("nearest", () => {
  it("finds swaps, gaps and other separators, and nothing for nonsense", () => {
    expect(nearest("lsiten", ["store", "listen"])).toBe("listen");
    expect(nearest("ops-listen", ["opsListen", "listen"])).toBe("opsListen");
    expect(nearest("qqqqqqqq", ["opsListen", "listen"])).toBeUndefined();
    expect(nearest("x".repeat(1_000_000), ["listen"])).toBeUndefined();
  });
});

import { describe, expect, it, test } from "vitest";
import type { Demand, Verb } from "../../src/server/security/access.js";
import { type Allowance, Policy } from "../../src/server/security/policy.js";
import { parsePolicy } from "../../src/server/security/policy-file.js";

const fallback: Allowance = { leases: 1, locks: 2, waiters: 3, requestsPerSecond: 0, requestsBurst: 4 };

function policy(text: string): Policy {
  const parsed = parsePolicy(text, fallback);
  if (typeof parsed === "string") throw new Error(parsed);
  return parsed;
}

const name = (verb: Verb, lock: string): Demand => ({ verb, name: lock, prefix: false });
const below = (verb: Verb, prefix: string): Demand => ({ verb, name: prefix, prefix: true });

const example = policy(`
rules:
  - principal: token/ci
    prefix: ci/
    verbs: [acquire, observe]
  - principal: cert/spiffe://prod/*
    prefix: ""
    verbs: [observe]
  - principal: "*"
    prefix: public/
    verbs: [acquire]
  - principal: jwt/ops
    prefix: ""
    verbs: [admin]
quotas:
  - principal: token/ci
    leases: 10
    requestsPerSecond: 500
  - principal: "*"
    leases: 20
    waiters: 0
`);

test.each<[boolean, string, Demand]>([
  [true, "token/ci", name("acquire", "ci/1")],
  [true, "token/ci", name("acquire", "ci/")],
  [false, "token/ci", name("acquire", "ci")],
  [false, "token/ci", name("acquire", "cd/1")],
  [false, "token/ci", name("admin", "ci/1")],
  [true, "token/ci", name("acquire", "public/1")],
  [false, "token/ci2", name("acquire", "ci/1")],
  [false, "token/c", name("acquire", "ci/1")],
  [true, "token/ci", below("observe", "ci/")],
  [true, "token/ci", below("observe", "ci/deep/")],
  [false, "token/ci", below("observe", "c")],
  [false, "token/ci", below("observe", "")],
  [true, "cert/spiffe://prod/a", name("observe", "x")],
  [true, "cert/spiffe://prod/", below("observe", "")],
  [false, "cert/spiffe://prod", name("observe", "x")],
  [false, "cert/spiffe://prod/a", name("acquire", "x")],
  [true, "jwt/ops", below("admin", "")],
  [false, "jwt/ops", name("observe", "x")],
  // What will do as well.
  [true, "token/ci", { ...name("observe", "public/1"), or: "acquire" }],
  [false, "token/ci", { ...name("observe", "x"), or: "acquire" }],
])("%s: %s, %j", (permitted, principal, demand) => {
  expect(example.of(principal).permits(demand)).toBe(permitted);
});

it("takes the first quota that fits, and the default for what it does not mention", () => {
  expect(example.of("token/ci").allowance).toEqual({ ...fallback, leases: 10, requestsPerSecond: 500 });
  expect(example.of("token/else").allowance).toEqual({ ...fallback, leases: 20, waiters: 0 });
  expect(policy("rules: []").of("token/ci").allowance).toEqual(fallback);
});

it("denies everything without rules; without a file all but administration is permitted", () => {
  const nothing = policy("rules: []");
  const open = Policy.withoutFile(fallback);
  for (const verb of ["acquire", "observe", "admin"] as const) {
    expect(nothing.of("token/ci").permits(name(verb, "a"))).toBe(false);
    expect(open.of("token/ci").permits(name(verb, "a"))).toBe(verb !== "admin");
  }
});

it("forgets what it has put together when there are too many principals, and is right all the same", () => {
  for (let i = 0; i < 10_100; i++) example.of(`jwt/${i}`);
  expect(example.of("jwt/1").permits(name("acquire", "public/1"))).toBe(true);
});

describe("a file that is wrong is refused with its line", () => {
  const rule = (line: string) => `rules:\n  - principal: token/ci\n    prefix: ci/\n    ${line}\n`;
  test.each<[string, string]>([
    ["", "rules: Invalid input"],
    ["- 1", "line 1: Invalid input"],
    ["rules: []\nquotta: []", 'line 1: unknown key "quotta"; did you mean quotas?'],
    [rule("verb: [acquire]"), "line 2: [0].verbs"],
    [rule("verbs: []"), "line 4: rules[0].verbs"],
    [rule("verbs: [acquire, delete]"), "line 4: rules[0].verbs[1]"],
    [rule("verbs: [acquire]\n    prefx: b"), 'line 2: unknown key "prefx"; did you mean prefix?'],
    [rule("verbs: [acquire").replace("token/ci", "ci"), "line 5:"],
    [rule("verbs: [acquire]").replace("token/ci", "ci"), 'line 2: rules[0].principal: must be "*", or begin with'],
    [rule("verbs: [acquire]").replace("token/ci", "token/*/a"), "line 2: rules[0].principal: may have a * at its end"],
    [
      rule("verbs: [acquire]").replace("prefix: ci/", `prefix: ${"x".repeat(513)}`),
      "line 3: rules[0].prefix: must have",
    ],
    ["rules: []\nquotas:\n  - principal: token/ci\n    leases: -1", "line 4: quotas[0].leases"],
    ["rules: []\nquotas:\n  - principal: token/ci\n    leases: many", "line 4: quotas[0].leases"],
    ["rules: &a []\nquotas: *a", "aliases are not permitted"],
    ["rules: [\n", "line 2:"],
  ])("%j", (text, problem) => {
    const parsed = parsePolicy(text, fallback);
    expect(parsed).toBeTypeOf("string");
    const [line, rest] = problem.includes("[0].verbs") ? ["line", "verbs"] : [problem, ""];
    expect(parsed).toContain(line);
    expect(parsed).toContain(rest);
  });
});

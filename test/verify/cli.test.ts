import { spawn } from "node:child_process";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import type { HistoryEvent } from "../../src/client/index.js";
import { environment, leasehold, program } from "../cli/support.js";
import { mulberry32 } from "../e2e/told.js";
import { Generator } from "./generator.js";
import { lines } from "./support.js";

let folder = "";
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "leasehold-verify-"));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

async function file(name: string, text: string): Promise<string> {
  const path = join(folder, name);
  await writeFile(path, text);
  return path;
}

/** Two who are granted one lock, one within the hold of the other. */
const fault: readonly HistoryEvent[] = [
  { process: "web-1", ns: 1_000_000, id: 1, op: "acquire", type: "invoke", locks: [{ name: "a", mode: "exclusive" }] },
  { process: "web-1", ns: 2_000_000, id: 1, op: "acquire", type: "ok", grants: [{ token: 7 }] },
  { process: "web-2", ns: 3_000_000, id: 1, op: "acquire", type: "invoke", locks: [{ name: "a", mode: "exclusive" }] },
  { process: "web-2", ns: 4_000_000, id: 1, op: "acquire", type: "ok", grants: [{ token: 8 }] },
  { process: "web-1", ns: 5_000_000, id: 2, op: "refresh", type: "ok", name: "a", token: 7 },
];
const of = (process: string) => lines(fault.filter((event) => event.process === process));

test("a history that keeps the rules", async () => {
  const path = await file("good.jsonl", lines(new Generator(mulberry32(1)).run(300)));
  const { code, stdout, stderr } = await leasehold(["verify", path]);
  expect([code, stderr]).toEqual([0, ""]);
  expect(stdout).toMatch(/^acquire +\d+ +\d+ +\d+ +\d+$/m);
  expect(stdout).toMatch(/^fenced-mutex +\d+ +tokens +0$/m);
  expect(stdout).toMatch(/\nno violation\n$/);
});

test("a history that does not, in two files: the rule, and what happened as a timeline", async () => {
  const files = [await file("1.jsonl", of("web-1")), await file("2.jsonl", of("web-2"))];
  const { code, stdout } = await leasehold(["verify", ...files]);
  expect(code).toBe(1);
  expect(stdout.replaceAll(folder, "")).toMatchInlineSnapshot(`
    "events     5 within 4ms
    processes  2
    locks      1

    OPERATION  OK  FAILED  UNKNOWN  UNFINISHED
    acquire     2       0        0           0
    refresh     1       0        0           0

    CHECKER        LOOKED AT                         VIOLATIONS
    holding                2  grants                          1
    fenced-mutex           2  tokens                          1
    timestamps             0  timestamps and ranges           0
    fenced-writes          0  accepted writes                 0
    leaders                0  leaders seen                    0

    grant-inside-hold: a
      the rule: nobody is granted a lock while others provably hold it in a mode that does not go together
      but web-2 (token 8, exclusive) was granted the lock while web-1 (token 7, exclusive) provably held it
          TIME  PROCESS  EVENT                            CALLED AT
      0.000 ms  web-1    #1 acquire a exclusive ...       /1.jsonl:1
      1.000 ms  web-1    #1 acquire a exclusive: token 7  /1.jsonl:1
      2.000 ms  web-2    #1 acquire a exclusive ...       /2.jsonl:1
      3.000 ms  web-2    #1 acquire a exclusive: token 8  /2.jsonl:1
      4.000 ms  web-1    #2 refresh a token 7: held       /1.jsonl:3

    acquire-while-owned: a
      the rule: in the order of tokens, each grant goes together with those before it that still last
      but web-2 (token 8, exclusive) was granted the lock although by their tokens it comes after others: web-1 (token 7, exclusive) provably held it beyond the return of its acquire
          TIME  PROCESS  EVENT                            CALLED AT
      0.000 ms  web-1    #1 acquire a exclusive ...       /1.jsonl:1
      1.000 ms  web-1    #1 acquire a exclusive: token 7  /1.jsonl:1
      2.000 ms  web-2    #1 acquire a exclusive ...       /2.jsonl:1
      3.000 ms  web-2    #1 acquire a exclusive: token 8  /2.jsonl:1
      4.000 ms  web-1    #2 refresh a token 7: held       /1.jsonl:3

    2 violations
    "
  `);
  const json = await leasehold(["verify", "--json", ...files]);
  expect(json.code).toBe(1);
  expect(JSON.parse(json.stdout)).toMatchObject({
    ok: false,
    events: 5,
    operations: { acquire: { ok: 2, fail: 0, unknown: 0, unfinished: 0 } },
    violations: [{ rule: "grant-inside-hold", subject: "a" }, { rule: "acquire-while-owned" }],
  });
});

test("clocks that may be off by more than what is wrong", async () => {
  const path = await file("skewed.jsonl", lines(fault));
  expect((await leasehold(["verify", "--skew", "1ms", path])).code).toBe(0);
  expect((await leasehold(["verify", "--skew", "400us", path])).code).toBe(64);
});

test("standard input, and a last line that was cut off", async () => {
  const child = spawn(process.execPath, [program, "verify", "-"], { env: environment() });
  let stdout = "";
  child.stdout.on("data", (chunk) => {
    stdout += chunk;
  });
  child.stdin.end(`${lines(fault.slice(0, 3))}{"process":"web-2","ns":4`);
  expect(await new Promise((resolve) => child.once("close", resolve))).toBe(0);
  expect(stdout).toContain("1 last line, ignored");
});

test.each([
  ["no JSON", "nonsense\n", "2 is no JSON"],
  [
    "an operation that nobody knows",
    '{"op":"steal","type":"ok"}\n',
    '2 has no operation that is known: "op" is "steal"',
  ],
  ["a type that it cannot have", '{"op":"tick","type":"invoke"}\n', '2 has a "type" that "tick" cannot have: "invoke"'],
  ["no token", '{"process":"p","ns":1,"id":9,"op":"refresh","type":"ok","name":"a"}\n', '2 has no "token"'],
  ["a wrong time", '{"process":"p","ns":"1","id":9,"op":"release","type":"ok"}\n', '2 has a wrong "ns"'],
  [
    "a result without a call",
    '{"process":"p","ns":1,"id":9,"op":"release","type":"ok"}\n',
    "2 is the result of a call of release that is not there",
  ],
  ["a call that comes twice", lines(fault.slice(0, 1)), "2 calls operation 1 of this process a second time"],
  [
    "too many grants",
    lines([{ ...fault[1], grants: [{ token: 1 }, { token: 2 }] } as never]),
    "2 has 2 grants for 1 locks",
  ],
])("a line with %s", async (_, line, message) => {
  const path = await file("odd.jsonl", `${lines(fault.slice(0, 1))}${line}`);
  const { code, stdout, stderr } = await leasehold(["verify", path]);
  expect([code, stdout]).toEqual([65, ""]);
  expect(stderr).toContain(`leasehold: ${path}:${message}`);
});

test("a file that is not there, and none", async () => {
  const missing = await leasehold(["verify", join(folder, "missing.jsonl")]);
  expect(missing.code).toBe(65);
  expect(missing.stderr).toMatch(/^leasehold: cannot read .*missing\.jsonl: ENOENT/);
  expect((await leasehold(["verify"])).code).toBe(64);
});

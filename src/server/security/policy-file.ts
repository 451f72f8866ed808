/** Reads the policy from its file. Every mistake is told with the line where it is, and nothing of the file is used then. */
import { type Document, isNode, LineCounter, parseDocument } from "yaml";
import { z } from "zod";
import { nearest } from "../config/nearest.js";
import { readBounded, UnusableFileError } from "./files.js";
import { type Allowance, Policy } from "./policy.js";
import type { Reloadable } from "./reload.js";

const FILE_BYTES_MAX = 1_048_576;
const RULES_MAX = 10_000;
const PRINCIPAL_LENGTH_MAX = 256;
const PREFIX_BYTES_MAX = 512;
const VERBS = ["acquire", "observe", "admin"] as const;
const KINDS = ["token/", "cert/", "jwt/"];

const principal = z
  .string()
  .min(1)
  .max(PRINCIPAL_LENGTH_MAX)
  .refine((text) => text === "*" || KINDS.some((kind) => text.startsWith(kind)), {
    message: `must be "*", or begin with ${KINDS.join(", ")}`,
  })
  .refine((text) => !text.slice(0, -1).includes("*"), { message: "may have a * at its end only" });
const amount = z.number().int().min(0).max(Number.MAX_SAFE_INTEGER).optional();

const ruleShape = z.strictObject({
  principal,
  prefix: z.string().refine((text) => Buffer.byteLength(text) <= PREFIX_BYTES_MAX && !/\p{Cc}/u.test(text), {
    message: `must have at most ${PREFIX_BYTES_MAX} bytes and no control characters`,
  }),
  verbs: z.array(z.enum(VERBS)).min(1),
});
const quotaShape = z.strictObject({
  principal,
  leases: amount,
  locks: amount,
  waiters: amount,
  requestsPerSecond: amount,
  requestsBurst: amount,
});
const fileShape = z.strictObject({
  rules: z.array(ruleShape).max(RULES_MAX),
  quotas: z.array(quotaShape).max(RULES_MAX).default([]),
});
const KEYS = [fileShape, ruleShape, quotaShape].flatMap((shape) => Object.keys(shape.shape));

/** The policy in a text, or what is wrong with it: "line 3: …". */
export function parsePolicy(text: string, fallback: Allowance): Policy | string {
  const lines = new LineCounter();
  const document = parseDocument(text, { lineCounter: lines, prettyErrors: false });
  const lineOf = (offset: number) => `line ${lines.linePos(offset).line}`;
  const [error] = document.errors;
  if (error) return `${lineOf(error.pos[0])}: ${error.message.split("\n")[0]}`;
  let value: unknown;
  try {
    value = document.toJS({ maxAliasCount: 0 }) ?? {};
  } catch (aliases) {
    return `aliases are not permitted: ${(aliases as Error).message}`;
  }
  const parsed = fileShape.safeParse(value);
  if (parsed.success) return new Policy(parsed.data.rules, parsed.data.quotas, fallback);
  const [issue] = parsed.error.issues;
  if (issue === undefined) return "it is no policy";
  const at = offsetOf(document, issue.path);
  return `${at === undefined ? "" : `${lineOf(at)}: `}${describe(issue)}`;
}

/** Of the value at this path, or of the nearest thing around it. */
function offsetOf(document: Document, path: readonly PropertyKey[]): number | undefined {
  for (let length = path.length; length >= 0; length--) {
    const node = length === 0 ? document.contents : document.getIn(path.slice(0, length) as unknown[], true);
    if (isNode(node) && node.range) return node.range[0];
  }
  return undefined;
}

function describe(issue: z.core.$ZodIssue): string {
  const where = issue.path.map((step) => (typeof step === "number" ? `[${step}]` : `.${String(step)}`)).join("");
  const key = where.replace(/^\./, "");
  if (issue.code === "unrecognized_keys") {
    const name = issue.keys[0] ?? "";
    const near = nearest(name, KEYS);
    return `unknown key ${JSON.stringify(name)}${near === undefined ? "" : `; did you mean ${near}?`}`;
  }
  return key === "" ? issue.message : `${key}: ${issue.message}`;
}

/** The policy that is in force; that of a file is read again when it changes. */
export class PolicyInForce implements Reloadable {
  readonly what = "the policy";
  readonly files: readonly string[];
  readonly #fallback: Allowance;
  readonly #onLoad: () => void;
  #policy: Policy;

  /** `file`: "" for none. `onLoad` is called after each reading. */
  constructor(file: string, fallback: Allowance, onLoad: () => void) {
    this.files = file === "" ? [] : [file];
    this.#fallback = fallback;
    this.#onLoad = onLoad;
    // With a file nothing is permitted before it was read.
    this.#policy = file === "" ? Policy.withoutFile(fallback) : new Policy([], [], fallback);
  }

  get current(): Policy {
    return this.#policy;
  }

  async load(): Promise<void> {
    const [file] = this.files;
    if (file === undefined) return;
    const policy = parsePolicy((await readBounded("policy", file, FILE_BYTES_MAX)).toString("utf8"), this.#fallback);
    if (typeof policy === "string") throw new UnusableFileError("policy", file, policy);
    this.#policy = policy;
    this.#onLoad();
  }
}

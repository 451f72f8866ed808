/**
 * Puts the configuration together: a flag wins over an environment variable, that over the file, that over the default.
 * Every mistake becomes one line that names the place where it was made.
 */
import { readFileSync } from "node:fs";
import { LineCounter, parseDocument, stringify } from "yaml";
import type { z } from "zod";
import { CONFIG_VARIABLE, OTHER_VARIABLES, options } from "./catalog.js";
import { isLocal, parseEndpoint } from "./endpoint.js";
import { nearest } from "./nearest.js";
import { configSchema, exposure, type ServerConfig } from "./schema.js";

export interface ConfigSources {
  /** Values of flags by attribute name; undefined: not given. `config` names the file. */
  readonly flags?: Readonly<Record<string, unknown>>;
  readonly env?: Readonly<Record<string, string | undefined>>;
}

export type ConfigResult =
  | { readonly ok: true; readonly config: ServerConfig; readonly warnings: readonly string[] }
  /** One line each. */
  | { readonly ok: false; readonly problems: readonly string[] };

type Tree = Record<string, unknown>;

const NOT_A_MAP = 'is not a list of "option: value" lines';

const isTree = (value: unknown): value is Tree => typeof value === "object" && value !== null && !Array.isArray(value);

export function loadConfig(sources: ConfigSources): ConfigResult {
  const { flags = {}, env = {} } = sources;
  const file = filePath(flags, env);
  const read = file === undefined ? { tree: {} } : readConfigFile(file.path, file.from);
  if ("problem" in read) return { ok: false, problems: [read.problem] };

  const tree: Tree = { ...read.tree, limits: read.tree.limits ?? {} };
  const origins = new Map<string, string>();
  for (const option of options) {
    const flag = flags[option.attribute];
    const given = flag ?? (env[option.variable] || undefined);
    if (given !== undefined) {
      origins.set(option.key, flag === undefined ? option.variable : option.flag);
      put(tree, option.path, given);
    } else if (file !== undefined && valueAt(read.tree, option.path) !== undefined) {
      origins.set(option.key, `${file.path}: ${option.key}`);
    }
  }

  const parsed = configSchema.safeParse(tree);
  if (parsed.success)
    return { ok: true, config: parsed.data, warnings: [...unknownVariables(env), ...exposed(parsed.data)] };
  const problems = parsed.error.issues.flatMap((issue) => describe(issue, origins, file?.path ?? ""));
  return { ok: false, problems: problems.map(oneLine) };
}

/** Values are quoted in messages: they must neither break the line nor steer the terminal. */
const oneLine = (text: string) =>
  text.replace(/[\p{Cc}\p{Cf}\u2028\u2029]/gu, (c) => `\\u${c.codePointAt(0)!.toString(16).padStart(4, "0")}`);

function filePath(flags: Readonly<Record<string, unknown>>, env: Readonly<Record<string, string | undefined>>) {
  const flag = flags.config;
  if (typeof flag === "string") return { path: flag, from: "--config" };
  const variable = env[CONFIG_VARIABLE];
  return variable ? { path: variable, from: CONFIG_VARIABLE } : undefined;
}

function readConfigFile(path: string, from: string): { readonly tree: Tree } | { readonly problem: string } {
  let text: string;
  try {
    text = readFileSync(path, "utf8");
  } catch (error) {
    return { problem: `${from}: cannot read ${JSON.stringify(path)} (${(error as NodeJS.ErrnoException).code})` };
  }
  const lines = new LineCounter();
  const document = parseDocument(text, { lineCounter: lines, prettyErrors: false });
  const error = document.errors[0];
  if (error) return { problem: `${path}:${lines.linePos(error.pos[0]).line}: ${error.message.split("\n")[0]}` };
  let value: unknown;
  try {
    value = document.toJS() ?? {};
  } catch (aliasError) {
    return { problem: `${path}: ${(aliasError as Error).message}` };
  }
  return isTree(value) ? { tree: value } : { problem: `${path}: ${NOT_A_MAP}` };
}

/** Sets a value deep in the tree, unless the file has put something else than a map in its way. */
function put(tree: Tree, path: readonly string[], value: unknown): void {
  const [name = "", ...rest] = path;
  if (rest.length === 0) {
    tree[name] = value;
    return;
  }
  const below = tree[name] ?? {};
  if (!isTree(below)) return;
  const copy = { ...below };
  tree[name] = copy;
  put(copy, rest, value);
}

function describe(issue: z.core.$ZodIssue, origins: ReadonlyMap<string, string>, file: string): string[] {
  const key = issue.path.join(".");
  if (issue.code === "unrecognized_keys") {
    // Only a file can have those.
    const known = options.map((option) => option.key);
    return issue.keys.map((name) => {
      const unknown = key === "" ? name : `${key}.${name}`;
      return `${file}: unknown option ${JSON.stringify(unknown)}${suggestion(nearest(unknown, known))}`;
    });
  }
  if (issue.code === "invalid_type") return [`${file}: ${key}: ${NOT_A_MAP}`];
  return [`${origins.get(key) ?? key}: ${issue.message}`];
}

const suggestion = (near: string | undefined) => (near === undefined ? "" : `; did you mean ${near}?`);

/** Kubernetes puts such variables into every container when a service is called "leasehold". */
const OF_A_KUBERNETES_SERVICE = /_SERVICE_(HOST|PORT)(_\w+)?$|_PORT$|_PORT_\d+_(TCP|UDP)(_(PROTO|PORT|ADDR))?$/;

/** A misspelt variable would have no effect, but a foreign one must not stop the server: it is only pointed out. */
function unknownVariables(env: Readonly<Record<string, string | undefined>>): string[] {
  const known = [...options.map((option) => option.variable), CONFIG_VARIABLE, ...OTHER_VARIABLES];
  return Object.keys(env)
    .filter((name) => name.startsWith("LEASEHOLD_") && !known.includes(name) && !OF_A_KUBERNETES_SERVICE.test(name))
    .map((name) => `the environment variable ${name} has no meaning${suggestion(nearest(name, known))}`);
}

/** That others can reach it is permitted, but not to be forgotten. */
function exposed(config: ServerConfig): string[] {
  const lacking = exposure(config);
  const open = [config.listen, config.opsListen].filter((address) => {
    const endpoint = parseEndpoint(address);
    return endpoint !== undefined && !isLocal(endpoint);
  });
  if (lacking === "" || open.length === 0) return [];
  const which = open.join(" and ");
  return [`${which} can be reached from other machines, and ${lacking}; that is permitted by insecure`];
}

/** The configuration as a file that would yield it again. */
export function formatConfig(config: ServerConfig): string {
  const tree: Tree = {};
  for (const option of options) put(tree, option.path, option.show(valueAt(config, option.path)));
  return stringify(tree);
}

function valueAt(tree: unknown, path: readonly string[]): unknown {
  return path.reduce((value, name) => (isTree(value) ? value[name] : undefined), tree);
}

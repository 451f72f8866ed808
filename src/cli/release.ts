/**
 * `leasehold release NAME --force`: an administrator takes a lock away.
 *
 * The server does it in two phases: the holders are told, and each hold ends when its holder has confirmed, or when the
 * last promise made to it has run out. This command asks first, says what ends when, and stays until it has.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { v1 } from "@leasehold/client/wire";
import type { Command } from "commander";
import { positive } from "./arguments.js";
import { ask, canAsk, isYes } from "./ask.js";
import { type Caller, CliError, type ConnectionOptions, connectionOptions, exitCode, withServer } from "./common.js";
import { fetchLock, holdersTotal } from "./describe.js";
import { holderForJson, modeText, ownerText, type WireHolder } from "./lock-views.js";
import { duration, json, plain, print } from "./output.js";

const method = {
  path: "/leasehold.v1.AdminService/ForceRelease",
  request: v1.ForceReleaseRequest,
  response: v1.ForceReleaseResponse,
} as const;

interface ReleaseOptions extends ConnectionOptions {
  readonly force?: true;
  readonly token?: number;
  readonly now?: boolean;
  readonly yes?: true;
  readonly reason: string;
  readonly wait: boolean;
}

const LOOK_EVERY_MS = 200;
/** How much later than the server said the end may be seen. */
const LATE_MS_MAX = 5_000;
/** For those who are asked; all of them lose the lock. */
const NAMED_MAX = 10;

const HELP = `
Its holders are told at once. Each hold ends when its holder has confirmed (a command under leasehold run is ended
first), or when the last promise made to it has run out; only then does the next one get the lock. With --now it ends
at once: whoever still believes to hold the lock can then be stopped by a fence only.

Exit codes: 0 released, or nobody held it; 1 not confirmed at the question; 64 usage; 69 unreachable; 75 still held when
it should have been gone; 77 denied.`;

export function registerRelease(program: Command): void {
  const command = program
    .command("release")
    .summary("take a lock away from its holders")
    .description("Take a lock away from its holders, whether or not they are done.")
    .argument("<name>", "the name of the lock")
    .option("--force", "required: the holders may be at work")
    .option("--token <n>", "only the hold with this token (default: all)", positive)
    .option("--now", "do not wait for the holders: only a fence keeps them from harm then")
    .option("--reason <text>", "for the holders and for the server's log", "")
    .option("-y, --yes", "do not ask")
    .option("--no-wait", "do not wait until it is gone")
    .addHelpText("after", HELP);
  connectionOptions(command).action(async (name: string, options: ReleaseOptions) => {
    if (!options.force) {
      throw usage(
        "this takes a lock away from holders that may be at work; give --force if that is meant. " +
          "A holder gives its lock back by itself, and one that is gone loses it when its lease ends.",
      );
    }
    process.exitCode = await withServer(options, (server) => release(server, name, options));
  });
}

const usage = (text: string) => new CliError(`leasehold release: ${text}`, exitCode.usage);

/** Returns the exit code. */
async function release(server: Caller, name: string, options: ReleaseOptions): Promise<number> {
  const lock = await fetchLock(server, name, 1);
  const { token = 0 } = options;
  const affected = (lock.holders ?? []).filter((holder) => token === 0 || holder.token === token);
  const unlisted = holdersTotal(lock) - (lock.holders ?? []).length;
  if (affected.length === 0 && unlisted === 0) return nothingToDo(name, options);
  let tokens = [token];
  if (!options.yes) {
    const all = affected.length + (token === 0 || affected.length === 0 ? unlisted : 0);
    if (!(await confirmed(name, affected, all, options.now === true))) {
      process.stderr.write("nothing was released\n");
      return exitCode.declined;
    }
    // The answer was about those who were shown. Somebody else may have the lock by now.
    if (token === 0 && unlisted === 0) tokens = affected.map((holder) => holder.token ?? 0);
  }
  const begun = await forceRelease(server, name, tokens, options);
  if (begun.ended.length + begun.revoking.length === 0) return nothingToDo(name, options);
  const text = begunText(name, affected, begun);
  return finish(server, name, begun, affected, text, options);
}

interface Begun {
  readonly ended: readonly number[];
  readonly revoking: readonly number[];
  readonly withinMs: number;
}

/** Token 0 stands for all. */
async function forceRelease(
  server: Caller,
  name: string,
  tokens: readonly number[],
  { now = false, reason }: ReleaseOptions,
): Promise<Begun> {
  const ended: number[] = [];
  const revoking: number[] = [];
  let withinMs = 0;
  for (const token of tokens) {
    try {
      const answer = await server.call(method, { name, token, now, reason });
      ended.push(...(answer.ended ?? []));
      revoking.push(...(answer.revoking ?? []));
      withinMs = Math.max(withinMs, answer.withinMs);
    } catch (error) {
      if (!(error instanceof CliError && error.reason === "STALE_TOKEN")) throw error; // it has ended meanwhile
    }
  }
  return { ended, revoking, withinMs };
}

/** Stays until the holds are gone, unless it is told not to. */
async function finish(
  server: Caller,
  name: string,
  { ended, revoking, withinMs }: Begun,
  affected: readonly WireHolder[],
  text: string,
  { wait, json: asJson }: ReleaseOptions,
): Promise<number> {
  if (!asJson) print(text);
  const gone = revoking.length === 0 || (wait && (await allGone(server, name, revoking, withinMs)));
  if (asJson) print(json({ name, holders: affected.map(holderForJson), ended, revoking, withinMs, gone }));
  else if (wait && revoking.length > 0) print(gone ? "gone\n" : "still held: the server has not ended it in time\n");
  return gone || !wait ? exitCode.ok : exitCode.busy;
}

function nothingToDo(name: string, { token, json: asJson }: ReleaseOptions): number {
  const nobody = { name, holders: [], ended: [], revoking: [], withinMs: 0, gone: true };
  if (asJson) print(json(nobody));
  else if (token === undefined) print(`nobody holds ${plain(name)}\n`);
  else print(`token ${token} does not hold ${plain(name)}\n`);
  return exitCode.ok;
}

async function confirmed(name: string, affected: readonly WireHolder[], all: number, now: boolean): Promise<boolean> {
  if (!canAsk()) {
    throw usage("there is no terminal to ask on; give --yes if it is meant");
  }
  process.stderr.write(`${plain(name)} is held by\n`);
  for (const holder of affected.slice(0, NAMED_MAX)) process.stderr.write(`  ${holderText(holder)}\n`);
  if (all > NAMED_MAX) process.stderr.write(`  ... and ${all - NAMED_MAX} more\n`);
  const from = all === 1 ? "this holder" : `all ${all} holders`;
  const how = now ? ", without waiting until it has stopped" : "";
  return isYes(await ask(`Take the lock away from ${from}${how}? [y/N] `));
}

function holderText(holder: WireHolder): string {
  const held = duration(holder.heldMs ?? 0);
  return `${ownerText(holder.owner)}, token ${holder.token}, ${modeText(holder)}, for ${held}`;
}

function begunText(name: string, affected: readonly WireHolder[], { ended, revoking, withinMs }: Begun): string {
  const ownerOf = (token: number) => affected.find((holder) => holder.token === token)?.owner;
  const one = (token: number) => `token ${token}${ownerOf(token) ? ` (${ownerText(ownerOf(token))})` : ""}`;
  const who = (tokens: readonly number[]) => {
    const more = tokens.length > NAMED_MAX ? ` and ${tokens.length - NAMED_MAX} more` : "";
    return tokens.slice(0, NAMED_MAX).map(one).join(", ") + more;
  };
  let text = "";
  if (ended.length > 0) text += `${plain(name)}: ended ${who(ended)}\n`;
  if (revoking.length > 0) {
    text += `${plain(name)}: being taken away from ${who(revoking)}, within ${duration(withinMs)}\n`;
  }
  return text;
}

/** Waits until none of these tokens holds the lock. False: one still does although its time is over. */
async function allGone(server: Caller, name: string, tokens: readonly number[], withinMs: number): Promise<boolean> {
  const wanted = new Set(tokens);
  const startedMs = performance.now();
  for (;;) {
    const lock = await fetchLock(server, name, 1);
    const holders = lock.holders ?? [];
    const listed = holders.some(({ token }) => wanted.has(token ?? 0));
    const overMs = performance.now() - startedMs - withinMs;
    // What is not listed may be one of the holders beyond the list, until its time is over.
    if (!listed && (holdersTotal(lock) <= holders.length || overMs > 0)) return true;
    if (overMs > LATE_MS_MAX) return false;
    await sleep(LOOK_EVERY_MS);
  }
}

import { type leasehold, v1 } from "@leasehold/client/wire";
import type { Command } from "commander";
import { positive } from "./arguments.js";
import { type Caller, type ConnectionOptions, connectionOptions, withServer } from "./common.js";
import { fetchLock, lockForJson, lockForPeople } from "./describe.js";
import { holderForJson, lockModeText, ownerText, type WireHolder } from "./lock-views.js";
import { duration, json, plain, print, table } from "./output.js";

const listLocks = {
  path: "/leasehold.v1.LockService/ListLocks",
  request: v1.ListLocksRequest,
  response: v1.ListLocksResponse,
} as const;

const PAGE_SIZE = 500;

export function registerLocks(program: Command): void {
  const locks = program
    .command("locks")
    .description("list the locks that are held or waited for")
    .argument("[prefix]", "only names that begin so", "")
    .option("--limit <n>", "how many at most", positive, 1_000);
  connectionOptions(locks).action(showLocks);

  const describe = locks
    .command("describe")
    .description("tell who holds a lock, who waits for it, and for whom")
    .argument("<name>", "the name of the lock");
  // `locks --addr a describe x` and `locks describe x --addr a` are the same.
  connectionOptions(describe).action(showLock);
}

async function showLocks(prefix: string, options: ConnectionOptions & { readonly limit: number }): Promise<void> {
  const found = await withServer(options, (server) => fetchLocks(server, prefix, options.limit));
  if (options.json) {
    print(json({ locks: found.locks.map(summaryForJson), truncated: found.truncated }));
    return;
  }
  if (found.locks.length === 0) {
    print(prefix === "" ? "no locks\n" : `no locks that begin with ${plain(prefix)}\n`);
    return;
  }
  const headings = ["NAME", "MODE", "HOLDERS>", "TOKEN>", "OWNER", "HELD>", "LEASE ENDS IN>", "WAITING>"];
  print(table(headings, found.locks.map(row)));
  if (found.truncated) print(`... and more: give a longer prefix, or --limit above ${options.limit}\n`);
}

type LockSummary = leasehold.v1.LockSummary.$Properties;

async function fetchLocks(server: Caller, prefix: string, limit: number) {
  const locks: LockSummary[] = [];
  let pageToken = "";
  do {
    const pageSize = Math.min(PAGE_SIZE, limit - locks.length);
    const page = await server.call(listLocks, { prefix, pageSize, pageToken });
    locks.push(...(page.locks ?? []));
    if (page.nextPageToken === pageToken) break; // a server that gets nowhere
    pageToken = page.nextPageToken;
  } while (pageToken !== "" && locks.length < limit);
  return { locks: locks.slice(0, limit), truncated: pageToken !== "" || locks.length > limit };
}

const holdersOf = (lock: LockSummary): number => Math.max(lock.holdersTotal ?? 0, lock.holders?.length ?? 0);

function row(lock: LockSummary): string[] {
  const holders = lock.holders ?? [];
  const [first, ...others] = holders;
  const waiting = String(lock.waiters ?? 0);
  const name = plain(lock.name ?? "");
  if (!first) return [name, "-", "0", "-", whyFree(lock), "-", "-", waiting];
  const mode = lockModeText(holders, holdersOf(lock));
  const [held, left] = [duration(first.heldMs ?? 0), duration(first.leaseRemainingMs ?? 0)];
  return [name, mode, String(holdersOf(lock)), String(first.token), ownersText(first, others), held, left, waiting];
}

function ownersText(first: WireHolder, others: readonly WireHolder[]): string {
  const more = others.length > 0 ? ", ..." : "";
  const leaving = first.revoking ? " (being taken away)" : "";
  return `${ownerText(first.owner)}${more}${leaving}`;
}

function whyFree(lock: LockSummary): string {
  if (lock.delayRemainingMs) return `(delayed for ${duration(lock.delayRemainingMs)})`;
  return lock.reserved ? "(reserved)" : "(free)";
}

function summaryForJson(lock: LockSummary) {
  const { name, holders, waiters, reserved, delayRemainingMs } = lock;
  return {
    name,
    holders: (holders ?? []).map(holderForJson),
    holdersTotal: holdersOf(lock),
    ...{ waiters, reserved, delayRemainingMs },
  };
}

async function showLock(name: string, own: ConnectionOptions, command: Command): Promise<void> {
  const outer = command.parent?.opts<ConnectionOptions>() ?? own;
  const given = Object.entries(own).filter(([option]) => command.getOptionValueSource(option) === "cli");
  const options: ConnectionOptions = { ...outer, ...Object.fromEntries(given) };
  const lock = await withServer(options, (server) => fetchLock(server, name));
  print(options.json ? json(lockForJson(lock)) : lockForPeople(name, lock));
}

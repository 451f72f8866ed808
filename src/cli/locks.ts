import { type leasehold, v1 } from "@leasehold/client/wire";
import { type Command, InvalidArgumentError } from "commander";
import { type Caller, type ConnectionOptions, connectionOptions, withServer } from "./common.js";
import { base64, duration, json, plain, plural, print, table } from "./output.js";

const listLocks = {
  path: "/leasehold.v1.LockService/ListLocks",
  request: v1.ListLocksRequest,
  response: v1.ListLocksResponse,
} as const;
const describeLock = {
  path: "/leasehold.v1.LockService/DescribeLock",
  request: v1.DescribeLockRequest,
  response: v1.DescribeLockResponse,
} as const;

const PAGE_SIZE = 500;
/** Waiters that are listed when one lock is described. */
const WAITERS_MAX = 100;

export function registerLocks(program: Command): void {
  const locks = program
    .command("locks")
    .description("list the locks that are held or waited for")
    .argument("[prefix]", "only names that begin so", "")
    .option("--limit <n>", "how many at most", positive, 1_000);
  connectionOptions(locks).action(showLocks);

  const describe = locks
    .command("describe")
    .description("tell who holds a lock and who waits for it")
    .argument("<name>", "the name of the lock");
  // `locks --addr a describe x` and `locks describe x --addr a` are the same.
  connectionOptions(describe).action(showLock);
}

function positive(text: string): number {
  if (!/^[1-9]\d{0,8}$/.test(text)) throw new InvalidArgumentError("It is not a whole number above zero.");
  return Number(text);
}

async function showLocks(prefix: string, options: ConnectionOptions & { readonly limit: number }): Promise<void> {
  const found = await withServer(options.addr, (server) => fetchLocks(server, prefix, options.limit));
  if (options.json) {
    print(json({ locks: found.locks.map(summaryForJson), truncated: found.truncated }));
    return;
  }
  if (found.locks.length === 0) {
    print(prefix === "" ? "no locks\n" : `no locks that begin with ${plain(prefix)}\n`);
    return;
  }
  print(table(["NAME", "TOKEN>", "OWNER", "HELD>", "LEASE ENDS IN>", "WAITING>"], found.locks.map(row)));
  if (found.truncated) print(`... and more: give a longer prefix, or --limit above ${options.limit}\n`);
}

type LockSummary = leasehold.v1.LockSummary.$Properties;
type Holder = leasehold.v1.Holder.$Properties;

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

function row(lock: LockSummary): string[] {
  const [holder, ...others] = lock.holders ?? [];
  const waiting = String(lock.waiters ?? 0);
  const name = plain(lock.name ?? "");
  if (!holder) return [name, "-", lock.reserved ? "(reserved)" : "(free)", "-", "-", waiting];
  const owner = (plain(holder.owner ?? "") || "-") + (others.length > 0 ? ` and ${others.length} more` : "");
  const held = duration(holder.heldMs ?? 0);
  return [name, String(holder.token), owner, held, duration(holder.leaseRemainingMs ?? 0), waiting];
}

// A decoded message has the fields that were not sent on its prototype: JSON is made field by field.
const summaryForJson = ({ name, holders, waiters, reserved }: LockSummary) => ({
  name,
  holders: (holders ?? []).map(holderForJson),
  waiters,
  reserved,
});

const holderForJson = ({ token, timestamp, owner, metadata, heldMs, leaseRemainingMs, leaseDisplayId }: Holder) => ({
  token,
  timestamp,
  owner,
  metadata: base64(metadata ?? new Uint8Array()),
  heldMs,
  leaseRemainingMs,
  leaseDisplayId,
});

async function showLock(name: string, own: ConnectionOptions, command: Command): Promise<void> {
  const outer = command.parent?.opts<ConnectionOptions>() ?? own;
  const given = (option: keyof ConnectionOptions) => command.getOptionValueSource(option) === "cli";
  const addr = given("addr") ? own.addr : outer.addr;
  const request = { name, waitersMax: WAITERS_MAX };
  const lock = await withServer(addr, (server) => server.call(describeLock, request));
  print(own.json || outer.json ? json(lockForJson(lock)) : lockForPeople(name, lock));
}

type Described = ReturnType<typeof v1.DescribeLockResponse.decode>;

function lockForJson(lock: Described) {
  const waiters = (lock.waiters ?? []).map(({ ticketId, position, owner, metadata, waitedMs, attached }) => ({
    ticketId,
    position,
    owner,
    metadata: base64(metadata ?? new Uint8Array()),
    waitedMs,
    attached,
  }));
  const { name, reserved, waitersTotal } = lock;
  return { name, holders: (lock.holders ?? []).map(holderForJson), reserved, waitersTotal, waiters };
}

function lockForPeople(name: string, lock: Described): string {
  const holders = lock.holders ?? [];
  let text = `${plain(name)}\n`;
  if (holders.length === 0) {
    text += lock.reserved ? "free, but reserved for the first waiter, whose connection broke\n" : "free\n";
  }
  for (const holder of holders) text += describeHolder(holder);
  const waiters = lock.waiters ?? [];
  if (lock.waitersTotal === 0) return `${text}nobody waits\n`;
  text += `${plural(lock.waitersTotal, "waiter")}\n`;
  text += table(
    ["#>", "OWNER", "WAITED>", "CONNECTED"],
    waiters.map((waiter) => [
      String(waiter.position),
      plain(waiter.owner ?? "") || "-",
      duration(waiter.waitedMs ?? 0),
      waiter.attached ? "yes" : "no",
    ]),
  );
  const unlisted = lock.waitersTotal - waiters.length;
  return unlisted > 0 ? `${text}... and ${unlisted} more\n` : text;
}

function describeHolder(holder: Holder): string {
  const { token = 0, timestamp = 0, heldMs, leaseRemainingMs } = holder;
  const owner = plain(holder.owner ?? "") || "someone without a name";
  const lease = `lease ${plain(holder.leaseDisplayId ?? "")} ends in ${duration(leaseRemainingMs ?? 0)} unless renewed`;
  return `held by ${owner} for ${duration(heldMs ?? 0)}, token ${token}, timestamp ${timestamp}, ${lease}\n`;
}

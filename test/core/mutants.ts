/** Copies of the core with one bug each, to see whether the simulator finds it. */
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import type { CoreClass } from "./sim/server.js";

export interface Mutant {
  readonly bug: string;
  readonly file: string;
  /** Occurs exactly once in the file. */
  readonly code: string;
  readonly instead: string;
}

export const mutants: readonly Mutant[] = [
  {
    bug: "the newest waiter is granted first",
    file: "queue.ts",
    code: "skipDead(lock.head);",
    instead: "skipDead(lock.tail);",
  },
  {
    bug: "a new Acquire overtakes those who wait",
    file: "acquire.ts",
    code: "(firstPlace(lock) !== null || !fits(state, lock, item, nowMs))",
    instead: "!fits(state, lock, item, nowMs)",
  },
  {
    bug: "a reader overtakes a writer that waits",
    file: "acquire.ts",
    code: "(firstPlace(lock) !== null || !fits(state, lock, item, nowMs))",
    instead: '((firstPlace(lock) !== null && item.mode !== "shared") || !fits(state, lock, item, nowMs))',
  },
  {
    bug: "tokens go back at a restart",
    file: "recover.ts",
    code: "token: Math.max(token, floors?.token ?? 0)",
    instead: "token: Math.max(0, token - 1)",
  },
  {
    bug: "tokens go back after a failed append",
    file: "recover.ts",
    code: "token: Math.max(token, floors?.token ?? 0)",
    instead: "token",
  },
  {
    bug: "the clock goes back at a restart",
    file: "recover.ts",
    code: "Math.max(ceiling, floors?.timestamp ?? 0)",
    instead: "0",
  },
  {
    bug: "a renewal is confirmed and has no effect",
    file: "leases.ts",
    code: "  lease.ttlUntilMs = nowMs + lease.ttlMs;\n",
    instead: "",
  },
  {
    bug: "the expiry looks at the deadline from before the renewal",
    file: "expiry.ts",
    code: "if (lease.deadlineMs <= asOfMs) {",
    instead: "if (lease.dueMs <= asOfMs) {",
  },
  {
    bug: "a renewal in a new incarnation is not written down",
    file: "leases.ts",
    code: "  if (first) putLease(state, fx, lease);\n",
    instead: "",
  },
  {
    bug: "a renewal counts as progress",
    file: "leases.ts",
    code: "if (progress && lease.progressEveryMs > 0) {",
    instead: "if (lease.progressEveryMs > 0) {",
  },
  {
    bug: "a report of progress has no effect",
    file: "leases.ts",
    code: "    lease.progressUntilMs = nowMs + lease.progressEveryMs;\n",
    instead: "",
  },
  {
    bug: "a restart counts as progress",
    file: "recover.ts",
    code: "nowMs + remaining(progressedIn, progressEveryMs)",
    instead: "nowMs + progressEveryMs",
  },
  {
    bug: "a waiter who is away is granted the lock",
    file: "settle.ts",
    code: 'if (ticket.route === null || state.halted !== "") return false;',
    instead: 'if (state.halted !== "") return false;',
  },
  {
    bug: "a repeated unary Acquire is executed again",
    file: "acquire.ts",
    code: "if (known !== undefined) return acquireAgain",
    instead: 'if (known?.kind === "request") return acquireAgain',
  },
  {
    bug: "a cancelled ticket stays in the queue",
    file: "cancel.ts",
    code: "    removeTicket(state, fx, effect, cancelledRequest, nowMs);\n",
    instead: "",
  },
  {
    bug: "a cancelled request id may be used again",
    file: "acquire.ts",
    code: "if (known !== undefined) return acquireAgain",
    instead: 'if (known !== undefined && known.kind !== "request") return acquireAgain',
  },
  {
    bug: "a stale token releases the present holder",
    file: "handover.ts",
    code: "const hold = state.holds.get(token);\n",
    instead: "const hold = state.holds.get(token) ?? state.locks.get(name)?.first ?? undefined;\n",
  },
  {
    bug: "a dead lease is renewed",
    file: "leases.ts",
    code: "return lease === undefined || lease.dead !== null ? undefined : lease;",
    instead: "return lease;",
  },
  {
    bug: "the outcome of a session's command is not remembered",
    file: "session-log.ts",
    code: "  session.unacked.set(seq, outcome);\n",
    instead: "",
  },
  {
    bug: "the outcome of a session's command is lost at a restart",
    file: "session-log.ts",
    code: `  session.unacked.set(seq, outcome);
  markDirty(state, session);
`,
    instead: "  session.unacked.set(seq, outcome);\n",
  },
  {
    bug: "the end of a unary Acquire is lost at a restart",
    file: "requests.ts",
    code: "  putRequest(fx, request);\n",
    instead: "",
  },
  {
    bug: "a grant is told before it is durable",
    file: "core.ts",
    code: "return command.requests.length > 0 ? state.batch : dependsOn;",
    instead: "return dependsOn;",
  },
  {
    bug: "a grant is taken back although another call has it",
    file: "cancel.ts",
    code: " || --hold.told > 0",
    instead: "",
  },
  {
    bug: "a grant that could not be delivered is kept",
    file: "cancel.ts",
    code: "hold.unfetchedUntilMs = nowMs + state.limits.resumeMs;",
    instead: "hold.unfetchedUntilMs = Number.POSITIVE_INFINITY;",
  },
  {
    bug: "a resume leaves a grant that nobody claims",
    file: "session.ts",
    code: 'endHold(state, fx, hold, "undelivered", nowMs);',
    instead: "continue;",
  },
  {
    bug: "a resume does not tell what is being taken away",
    file: "session.ts",
    code: 'tellHolder(fx, hold, "forced", hold.revoking, true);',
    instead: "continue;",
  },
  {
    bug: "the remaining time is counted from the reply",
    file: "leases.ts",
    code: "Math.max(0, Math.floor(lease.deadlineMs - nowMs))",
    instead: "lease.ttlMs",
  },
  {
    bug: "an expiry counts from the moment it looks back to",
    file: "core.ts",
    code: "expire(state, fx, nowMs, this.#latestMs)",
    instead: "expire(state, fx, nowMs, nowMs)",
  },
  {
    bug: "a waiter is forgotten when the one before it gives up",
    file: "tickets.ts",
    code: `  touchAll(state, ticket);
  if (lease.own)`,
    instead: "  if (lease.own)",
  },
  {
    bug: "there is a permit more than declared",
    file: "holders.ts",
    code: "return permits + item.permits <= limit;",
    instead: "return permits + item.permits <= limit + 1;",
  },
  {
    bug: "the largest limit counts",
    file: "holders.ts",
    code: "limit = Math.min(limit, declared);",
    instead: "limit = Math.max(limit, declared);",
  },
  {
    bug: "two holders get the same slot",
    file: "holders.ts",
    code: "if (hold === undefined || hold.lease.dead !== null) found.push(slot);",
    instead: "found.push(slot);",
  },
  {
    bug: "there is a holder more than there may be",
    file: "holders.ts",
    code: "lock.holders >= holdersPerLockMax",
    instead: "lock.holders > holdersPerLockMax",
  },
  {
    bug: "a set is granted when the first of its locks is free",
    file: "settle.ts",
    code: "of ticket.places) {",
    instead: "of ticket.places.slice(0, 1)) {",
  },
  {
    bug: "a set overtakes whoever came first at its other locks",
    file: "settle.ts",
    code: "if (firstPlace(lock)?.ticket !== ticket || !fits(",
    instead: "if (!fits(",
  },
  {
    bug: "only half of a set is granted",
    file: "holds.ts",
    code: "for (const { lock, item } of wanted) {",
    instead: "for (const { lock, item } of wanted.slice(0, Math.ceil(wanted.length / 2))) {",
  },
  {
    bug: "any circle counts as a deadlock",
    file: "deadlock.ts",
    code: "    if (!this.cut) this.#reduce(start);\n",
    instead: "",
  },
  {
    bug: "a deadlock is not noticed when a claim that several share is dropped",
    file: "claims.ts",
    code: "    if (hold.claimers !== null && hold.claimers.size > 0) state.suspects.add(hold);\n",
    instead: "",
  },
  {
    bug: "what a contender is granted while it waits is not claimed",
    file: "claims.ts",
    code: `      claim(ticket, hold);
      state.suspects`,
    instead: "      state.suspects",
  },
  {
    bug: "the claims of a ticket outlive it",
    file: "tickets.ts",
    code: "  dropClaims(state, ticket);\n",
    instead: "",
  },
  {
    bug: "the oldest wait of a knot is refused",
    file: "deadlock.ts",
    code: "const victim = knot.at(-1) as Ticket;",
    instead: "const victim = knot[0] as Ticket;",
  },
  {
    bug: "a lock delay follows a release",
    file: "holds.ts",
    code: 'const unconfirmed = end === "expired"',
    instead: 'const unconfirmed = end === "released" || end === "expired"',
  },
  {
    bug: "no lock delay follows an expiry",
    file: "holds.ts",
    code: 'const unconfirmed = end === "expired" || end === "max_hold"',
    instead: 'const unconfirmed = end === "max_hold"',
  },
  {
    bug: "a lock delay is lost at a restart",
    file: "holders.ts",
    code: "  putDelay(state, fx, lock.name, untilMs);\n",
    instead: "",
  },
  {
    bug: "a shorter lock delay takes the place of a longer one",
    file: "holders.ts",
    code: "  if (lock.delay !== null && lock.delay.untilMs >= untilMs) return;\n",
    instead: "",
  },
  {
    bug: "a maximum hold is moved by renewals",
    file: "leases.ts",
    code: "  lease.deadlineMs = Math.min(lease.ttlUntilMs, lease.progressUntilMs);\n",
    instead: `  lease.deadlineMs = Math.min(lease.ttlUntilMs, lease.progressUntilMs);
  for (const hold of lease.holds) {
    if (hold.maxHoldUntilMs === Number.POSITIVE_INFINITY) continue;
    Object.assign(hold, { maxHoldUntilMs: hold.maxHoldUntilMs + 100 });
    state.deadlines.set(hold, hold.maxHoldUntilMs);
  }
`,
  },
  {
    bug: "a maximum hold is forgotten at a restart",
    file: "records.ts",
    code: "maxHoldUntilMs === Number.POSITIVE_INFINITY ? 0 : toServed(state, maxHoldUntilMs)",
    instead: "0",
  },
  {
    bug: "a lock is handed to somebody who is away",
    file: "handover.ts",
    code: "if (ticket.route === null) {",
    instead: 'if (state.clusterId === "") {',
  },
  {
    bug: "a lock is handed to somebody whom other holders exclude",
    file: "handover.ts",
    code: "if (!free || delayUntilMs(state, lock) > nowMs) {",
    instead: "if (delayUntilMs(state, lock) > nowMs) {",
  },
  {
    bug: "a transfer grants before it ends what it hands over",
    file: "handover.ts",
    code: `  endHold(state, fx, hold, "transferred", nowMs);
  const { token } = grantTicket(state, fx, ticket, hold.token, nowMs);
`,
    instead: `  const { token } = grantTicket(state, fx, ticket, hold.token, nowMs);
  endHold(state, fx, hold, "transferred", nowMs);
`,
  },
  {
    bug: "a transfer is executed again when it is repeated",
    file: "handover.ts",
    code: '  remember(state, caller, { kind: "transferred", token });\n',
    instead: "",
  },
  {
    bug: "what is taken away ends before the last promise",
    file: "force.ts",
    code: "hold.revokingUntilMs = lease.deadlineMs;",
    instead: "hold.revokingUntilMs = lease.deadlineMs - 100;",
  },
  {
    bug: "what is taken away is promised anew",
    file: "leases.ts",
    code: "  if (first) putLease(state, fx, lease);\n",
    instead: `  if (first) putLease(state, fx, lease);
  for (const hold of lease.holds) {
    if (hold.revoking === null) continue;
    hold.revokingUntilMs = lease.deadlineMs;
    state.deadlines.set(hold, lease.deadlineMs);
  }
`,
  },
  {
    bug: "a lock is taken away from a unary holder at once",
    file: "force.ts",
    code: "if (request.now) {",
    instead: "if (request.now || hold.seq === 0) {",
  },
  {
    bug: "a restart forgets what is being taken away",
    file: "force.ts",
    code: `  putHold(state, fx, hold);
  announce(state, fx, hold, "revoking");
`,
    instead: '  announce(state, fx, hold, "revoking");\n',
  },
  {
    bug: "a renewal is answered ahead of the record of what is taken away",
    file: "force.ts",
    code: "  lease.batch = state.batch;\n",
    instead: "",
  },
  {
    bug: "a unary holder is not told what is being taken away",
    file: "force.ts",
    code: "  lease.revoking.add(hold);\n",
    instead: "",
  },
  {
    bug: "what is being taken away can be handed on",
    file: "handover.ts",
    code: '(hold.revoking !== null && kind !== "release")',
    instead: "false",
  },
  {
    bug: "a downgrade does not let readers in",
    file: "handover.ts",
    code: "    touch(state, hold.lock);\n",
    instead: "",
  },
  {
    bug: "a downgrade is lost at a restart",
    file: "handover.ts",
    code: `    putHold(state, fx, hold);
    announce(state, fx, hold, "downgraded");
`,
    instead: '    announce(state, fx, hold, "downgraded");\n',
  },
  {
    bug: "a new Acquire that closes a knot is let in",
    file: "acquire.ts",
    code: "isWaitedFor(ticket) ? findKnot(state, fx, ticket) : null",
    instead: "isWaitedFor(ticket) && request.waitMs < 0 ? findKnot(state, fx, ticket) : null",
  },
  {
    bug: "only the first of a set is taken back when nobody could be told",
    file: "cancel.ts",
    code: "hold.set === null ? [hold] : [...hold.set.holds]",
    instead: "[hold]",
  },
  {
    bug: "the lease of a set goes with the first of it",
    file: "holds.ts",
    code: "lease.own && lease.holds.size + lease.tickets.size === 0",
    instead: "lease.own",
  },
  {
    bug: "what a waiter keeps is forgotten at a restart",
    file: "records.ts",
    code: "contenderId, heldTokens]",
    instead: "contenderId, []]",
  },
  {
    bug: "another principal renews a lease",
    file: "execute.ts",
    code: `  if (!mayUse(caller.principal, lease.principal)) return denied("lease");
  renewLease`,
    instead: "  renewLease",
  },
  {
    bug: "another principal looks at a lease",
    file: "execute.ts",
    code: `      if (!mayUse(caller.principal, lease.principal)) return denied("lease");
      return {`,
    instead: "      return {",
  },
  {
    bug: "another principal revokes a lease",
    file: "execute.ts",
    code: "if (target !== undefined && !mayUse(caller.principal, target.principal))",
    instead: "if (state.clusterId === '')",
  },
  {
    bug: "another principal acquires through a lease",
    file: "acquire.ts",
    code: "if (lease !== undefined && !mayUse(caller.principal, lease.principal))",
    instead: "if (state.clusterId === '')",
  },
  {
    bug: "another principal cancels an Acquire",
    file: "cancel.ts",
    code: "if (lease !== undefined && !mayUse(principal, lease.principal))",
    instead: "if (state.clusterId === '')",
  },
  {
    bug: "another principal releases a grant",
    file: "handover.ts",
    code: "if (!mayUse(caller.principal, hold.lease.principal))",
    instead: "if (state.clusterId === '')",
  },
  {
    bug: "another principal resumes a session",
    file: "session.ts",
    code: "if (!mayUse(principal, session.principal))",
    instead: "if (state.clusterId === '')",
  },
  {
    bug: "a principal that begins like another passes for it",
    file: "principals.ts",
    code: "name === owner;",
    instead: "owner.startsWith(name);",
  },
  {
    bug: "the request ids of two principals meet",
    file: "state.ts",
    code: 'if (leaseId !== "" || principal === "") return',
    instead: "if (principal !== leaseId) return",
  },
  {
    bug: "a restart forgets whose a lease is",
    file: "records.ts",
    code: '    if (lease.principal !== "") more.push(lease.principal);\n',
    instead: "",
  },
  {
    bug: "a restart forgets whose a session is",
    file: "records.ts",
    code: '  if (session.principal !== "") record.push(session.principal);\n',
    instead: "",
  },
  {
    bug: "a session that was nobody's stays everybody's",
    file: "session.ts",
    code: `  if (session.principal === "") session.principal = principal.name;\n`,
    instead: "",
  },
  {
    bug: "a principal has one more than its quota",
    file: "principals.ts",
    code: "+ more <= max",
    instead: "+ more <= max + 1",
  },
  {
    bug: "a principal has one less than its quota",
    file: "principals.ts",
    code: "+ more <= max",
    instead: "+ more < max",
  },
  {
    bug: "the leases of a principal are not bounded",
    file: "leases.ts",
    code: "  if (refusal !== null) return refusal;\n",
    instead: "",
  },
  {
    bug: "the locks of a principal are not bounded",
    file: "acquire.ts",
    code: 'refuseQuota(state, principal, "locks", items.length)',
    instead: 'refuseQuota(state, principal, "locks", 0)',
  },
  {
    bug: "a set takes a single place of a principal's quota",
    file: "acquire.ts",
    code: 'refuseQuota(state, principal, "waiters", items.length)',
    instead: 'refuseQuota(state, principal, "waiters", 1)',
  },
  {
    bug: "what a principal has released goes on to count",
    file: "holds.ts",
    code: '  countUsage(state, lease.principal, "locks", -1);\n',
    instead: "",
  },
];

/** Loads the core with that bug. The copy is gone when `dispose` has run. */
export async function loadMutant(mutant: Mutant): Promise<{ core: CoreClass; dispose: () => void }> {
  const dir = mkdtempSync(join(tmpdir(), "leasehold-mutant-"));
  cpSync(fileURLToPath(new URL("../../src/server/core", import.meta.url)), dir, { recursive: true });
  const path = join(dir, mutant.file);
  const parts = readFileSync(path, "utf8").split(mutant.code);
  if (parts.length !== 2) {
    throw new Error(`${mutant.file} has the code of "${mutant.bug}" ${parts.length - 1} times, not once`);
  }
  writeFileSync(path, parts.join(mutant.instead));
  const url = pathToFileURL(join(dir, "core.ts")).href;
  const module = (await import(/* @vite-ignore */ url)) as { Core: CoreClass };
  return { core: module.Core, dispose: () => rmSync(dir, { recursive: true, force: true }) };
}

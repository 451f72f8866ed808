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
    file: "locks.ts",
    code: "const ticket = lock.head;",
    instead: "const ticket = lock.tail;",
  },
  {
    bug: "a new Acquire overtakes a waiter who is away for a moment",
    file: "acquire.ts",
    code: "(lock.hold === null && lock.head === null)",
    instead: "lock.hold === null",
  },
  {
    bug: "tokens go back at a restart",
    file: "recover.ts",
    code: "token: Math.max(token, init.floors?.token ?? 0)",
    instead: "token: Math.max(0, token - 1)",
  },
  {
    bug: "tokens go back after a failed append",
    file: "recover.ts",
    code: "token: Math.max(token, init.floors?.token ?? 0)",
    instead: "token",
  },
  {
    bug: "the clock goes back at a restart",
    file: "recover.ts",
    code: "Math.max(ceiling, init.floors?.timestamp ?? 0)",
    instead: "0",
  },
  {
    bug: "a renewal is confirmed and has no effect",
    file: "leases.ts",
    code: "  lease.deadlineMs = nowMs + lease.ttlMs;\n",
    instead: "",
  },
  {
    bug: "the expiry looks at the deadline from before the renewal",
    file: "expiry.ts",
    code: "if (lease.deadlineMs <= asOfMs)",
    instead: "if (lease.dueMs <= asOfMs)",
  },
  {
    bug: "a renewal in a new incarnation is not written down",
    file: "leases.ts",
    code: "    lease.renewedIn = state.incarnation;\n    putLease(state, fx, lease);\n",
    instead: "    lease.renewedIn = state.incarnation;\n",
  },
  {
    bug: "a waiter who is away is granted the lock",
    file: "locks.ts",
    code: 'if (ticket.route !== null && state.halted === "")',
    instead: 'if (state.halted === "")',
  },
  {
    bug: "a repeated unary Acquire is executed again",
    file: "acquire.ts",
    code: "if (known !== undefined) return acquireAgain",
    instead: 'if (known?.kind === "request") return acquireAgain',
  },
  {
    bug: "a cancelled ticket stays in the queue",
    file: "acquire.ts",
    code: "    removeTicket(state, fx, ticket, cancelledRequest, nowMs);\n",
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
    file: "core.ts",
    code: "if (hold?.token !== request.token || hold.lease.dead !== null)",
    instead: "if (!hold || hold.lease.dead !== null)",
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
    code: "  session.unacked.set(seq, outcome);\n  markDirty(state, session);\n",
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
    file: "acquire.ts",
    code: " || --hold.told > 0",
    instead: "",
  },
  {
    bug: "a grant that could not be delivered is kept",
    file: "acquire.ts",
    code: "state.deadlines.set(hold, nowMs + state.limits.resumeMs)",
    instead: "state.deadlines.delete(hold)",
  },
  {
    bug: "a resume leaves a grant that nobody claims",
    file: "session.ts",
    code: 'if (!kept && hold.lease.dead === null) endHold(state, fx, hold, "undelivered", nowMs);',
    instead: "if (!kept) continue;",
  },
  {
    bug: "the remaining time is counted from the reply",
    file: "leases.ts",
    code: "Math.floor(lease.deadlineMs - nowMs)",
    instead: "lease.ttlMs",
  },
  {
    bug: "an expiry counts from the moment it looks back to",
    file: "core.ts",
    code: "expire(this.#state, fx, nowMs, this.#latestMs)",
    instead: "expire(this.#state, fx, nowMs, nowMs)",
  },
  {
    bug: "a waiter is forgotten when the one before it gives up",
    file: "expiry.ts",
    code: "    removeTicket(state, fx, ticket, null, nowMs);\n    promote(state, fx, ticket.lock, nowMs);\n",
    instead: "    removeTicket(state, fx, ticket, null, nowMs);\n",
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

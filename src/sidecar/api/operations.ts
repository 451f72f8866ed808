/** What the API does, request by request. */
import type { LockDescription } from "@leasehold/client";
import type { Holds } from "../holds.js";
import { type Answer, badRequest, HttpProblem } from "../http/problem.js";
import { type Call, lockName, readBody, readInput } from "../http/router.js";
import { follow } from "../lamport.js";
import type { Link } from "../link.js";
import type { Attempts } from "./attempts.js";
import { HoldStream } from "./hold-stream.js";
import { acquireRequest, holdRequest, type LockBody, observeRequest, releaseRequest, tickRequest } from "./schemas.js";
import type { Taking } from "./taking.js";

/** Holds that one listing shows. */
const LISTED_MAX = 1_000;

export interface Parts {
  readonly link: Link;
  readonly holds: Holds;
  readonly taking: Taking;
  readonly attempts: Attempts;
  readonly version: string;
  readonly startedMs: number;
  readonly draining: () => boolean;
}

export function operations(parts: Parts) {
  return { ...lockOperations(parts), ...holdOperations(parts), ...otherOperations(parts) };
}

const ok = (body: unknown): Answer => ({ status: 200, body });

function lockOperations({ link, holds, taking, attempts }: Parts) {
  return {
    async acquire(call: Call): Promise<Answer> {
      const name = lockName(call);
      const { requestId, ...input } = await readInput(call, acquireRequest);
      if (input.maxHold === undefined && input.heartbeat === undefined) {
        throw badRequest("give heartbeat or maxHold, so that the lock outlives no application; or use /hold");
      }
      if (requestId !== undefined) {
        const asked = JSON.stringify([name, input]);
        const start = (signal: AbortSignal) => taking.take(name, input, false, signal);
        return ok((await attempts.join(requestId, asked, call.signal, start)).view());
      }
      const hold = await taking.take(name, input, false, call.signal);
      // Nobody could ask for it again.
      const giveBack = () => void (call.response.writableFinished || hold.release());
      if (call.signal.aborted) giveBack();
      else call.response.once("close", giveBack);
      return ok(hold.view());
    },

    async hold(call: Call): Promise<undefined> {
      const name = lockName(call);
      const input = await readInput(call, holdRequest);
      const hold = await taking.take(name, input, true, call.signal);
      if (call.signal.aborted) await hold.release();
      else new HoldStream(hold, call.response);
    },

    async release(call: Call): Promise<Answer> {
      const name = lockName(call);
      const { token } = await readInput(call, releaseRequest);
      const hold = holds.byToken(name, token);
      if (hold) return ok({ released: await hold.release() });
      throw new HttpProblem(409, "STALE_TOKEN", `token ${token} is not one that this sidecar holds this lock with`);
    },

    async describe(call: Call): Promise<Answer> {
      return ok(lockView(await link.client.describe(lockName(call))));
    },
  };
}

function holdOperations({ holds }: Parts) {
  const holdOf = (call: Call) => holds.get(call.parameters.holdId ?? "");
  return {
    listHolds(): Answer {
      const listed = [];
      for (const hold of holds.all()) {
        if (listed.length === LISTED_MAX) break;
        listed.push(hold.view());
      }
      return ok({ holds: listed, total: holds.size });
    },

    getHold(call: Call): Answer {
      const hold = holdOf(call);
      hold.assertHeld();
      return ok(hold.view());
    },

    async keepHold(call: Call): Promise<Answer> {
      const hold = holdOf(call);
      await readBody(call);
      hold.keep();
      return ok(hold.view());
    },

    async releaseHold(call: Call): Promise<Answer> {
      const hold = holdOf(call);
      await readBody(call);
      return ok({ released: await hold.release() });
    },
  };
}

function otherOperations({ link, holds, version, startedMs, draining }: Parts) {
  return {
    status(): Answer {
      return ok({
        version,
        uptimeMs: Math.floor(performance.now() - startedMs),
        connection: link.state,
        draining: draining(),
        holds: holds.size,
        waits: holds.waits,
        timestamp: link.reached ? link.client.clock.now() : 0,
      });
    },

    async tick(call: Call): Promise<Answer> {
      const { observed, count = 1 } = await readInput(call, tickRequest);
      const { clock } = link.client;
      if (observed !== undefined) follow(clock, observed);
      const { first, last } = await clock.range(count);
      return ok({ first, last, timestamp: last });
    },

    async observe(call: Call): Promise<Answer> {
      const { timestamp } = await readInput(call, observeRequest);
      return ok({ timestamp: follow(link.client.clock, timestamp) });
    },
  };
}

function lockView(lock: LockDescription): LockBody {
  const { name, holders, holdersTotal, waiters, waitersTotal, reserved, delayRemainingMs } = lock;
  return {
    name,
    holders: holders.map(({ owner, token, mode, heldMs, leaseRemainingMs, timestamp, metadata, slots, revoking }) => ({
      ...{ owner, token, mode, heldMs, leaseRemainingMs, timestamp, slots: [...slots], revoking },
      metadata: Buffer.from(metadata).toString("utf8"),
    })),
    waiters: waiters.map(({ ticketId, position, owner, mode, waitedMs, attached }) => {
      return { ticketId, position, owner, mode, waitedMs, attached };
    }),
    waitersTotal,
    ...{ holdersTotal, reserved, delayRemainingMs },
  };
}

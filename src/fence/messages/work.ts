/** One message in the hands of its handler: the attempts, and the record that it is handled. */
import { FenceError, stale } from "../errors.js";
import type { MessageContext, Settings } from "./consumer-options.js";
import type { HighWater, Mark } from "./high-water.js";
import type { Stamp } from "./stamp.js";
import { pause, pauseMs, type Timing } from "./timing.js";

/** Handles a message. It counts as handled when what this returns has resolved. */
export type Handler<M, Tx> = (message: M, context: MessageContext<Tx>) => Promise<unknown> | unknown;

/** What came of it. */
export type Verdict =
  | { readonly is: "handled" }
  /** The record has this mark in the way. `applied`: the effect may be there all the same. */
  | { readonly is: "refused"; readonly mark: Mark; readonly applied: boolean }
  /** Every attempt failed; `handled`: the handler did not, the record did. */
  | { readonly is: "failed"; readonly error: unknown; readonly handled: boolean }
  /** The consumer has ended before there was a result. */
  | { readonly is: "ended" };

export interface Bench<M, Tx> {
  readonly handler: Handler<M, Tx>;
  readonly settings: Settings<Tx>;
  readonly timing: Timing;
  readonly signal: AbortSignal;
}

/** What became of `save` in one attempt. */
interface Saving {
  saved: boolean;
  inTheWay: Mark | undefined;
}

/** Puts a position on record, or for a shared hold looks whether it may. Resolves to the mark in the way. */
export function record<Tx>(highWater: HighWater<Tx>, stamp: Stamp, tx?: Tx): Promise<Mark | undefined> {
  const { key, token, sequence } = stamp;
  return stamp.shared ? highWater.check(key, token, tx) : highWater.save(key, { token, sequence }, tx);
}

function refusal({ key, token, sequence }: Stamp, mark: Mark): FenceError {
  if (mark.token > token) return stale(key, token, mark.token);
  const message = `message ${sequence} of ${JSON.stringify(key)} under the token ${token} is handled already`;
  return new FenceError("CONFLICT", message, { resource: key, token, floor: mark.token });
}

/** Lets the handler work at a message until it is handled and on record, or all attempts have failed. */
export async function work<M, Tx>(stamp: Stamp, message: M, bench: Bench<M, Tx>): Promise<Verdict> {
  const { settings, timing, signal } = bench;
  let handled = stamp.sequence === 0; // a marker is nothing but its record
  for (let attempt = 1; ; attempt++) {
    const saving: Saving = { saved: false, inTheWay: undefined };
    try {
      if (!handled) await callHandler(stamp, message, attempt, saving, bench);
      if (saving.inTheWay) return { is: "refused", mark: saving.inTheWay, applied: true }; // it has ignored the refusal
      handled = true;
      if (saving.saved || (stamp.shared && stamp.sequence > 0)) return { is: "handled" };
      const mark = await record(settings.highWater, stamp);
      return mark ? { is: "refused", mark, applied: stamp.sequence > 0 } : { is: "handled" };
    } catch (error) {
      if (saving.inTheWay) return { is: "refused", mark: saving.inTheWay, applied: false };
      if (attempt >= settings.attemptsMax) return { is: "failed", error, handled };
      await pause(timing, pauseMs(settings.retryMs, attempt), signal);
      if (signal.aborted) return { is: "ended" };
    }
  }
}

async function callHandler<M, Tx>(
  stamp: Stamp,
  message: M,
  attempt: number,
  saving: Saving,
  { handler, settings, signal }: Bench<M, Tx>,
): Promise<void> {
  const { key, token, sequence, shared, timestamp } = stamp;
  if (timestamp !== undefined && attempt === 1) settings.clock?.observe(timestamp);
  await handler(message, {
    key,
    token,
    sequence,
    shared,
    timestamp,
    attempt,
    signal,
    async save(tx) {
      saving.inTheWay = await record(settings.highWater, stamp, tx);
      if (saving.inTheWay) throw refusal(stamp, saving.inTheWay);
      saving.saved = true;
    },
  });
}

/**
 * The fence for etcd. Check, raise and write are one transaction, and etcd carries out transactions one after the other:
 *
 *     the floor is not higher than the token ? put the floor, and what is to be written : read the floor
 *
 * A floor is stored as 16 digits, with zeros in front: etcd compares bytes, and so the order is that of the numbers. A
 * transaction can test one of three things, and which one is a guess that the answer corrects:
 *
 * - raised: the floor is this token. After the raise this is what it is, and the floor need not be written again.
 * - not higher: the floor is less than the token + 1. Nothing else than writing raises it.
 * - absent: there is no floor. A comparison of values fails for a key that does not exist.
 *
 * What etcd has acknowledged is on the disks of a majority, so that nothing can be lost as it can in Redis. A holder that
 * stops has no transaction open, and blocks nobody.
 */
import { FenceError, invalid, show, stale } from "../errors.js";
import type { Fence, Floor } from "../fence.js";
import { type Fenced, type Hold, holdOf, holdsOf } from "../hold.js";
import { RaisedFloors } from "../raised.js";
import { checkKeys, checkResource, readToken } from "../token.js";
import {
  deleteOp,
  type EtcdBytes,
  type EtcdCompare,
  type EtcdKv,
  type EtcdOp,
  type EtcdOpResponse,
  type EtcdRangeResponse,
  type EtcdTxnRequest,
  fromBase64,
  putOp,
  rangeOp,
  toBase64,
  valueIs,
  versionIs,
} from "./messages.js";

export { type EtcdGatewayOptions, etcdGateway } from "./gateway.js";
export * from "./messages.js";

const DIGITS = 16;
/** What every floor is greater than, and damaged ones mostly are not. */
const BELOW_ZERO = "0".repeat(DIGITS - 1);
/** Each further attempt means that somebody else has created, raised or reset the floor in between. */
const ATTEMPTS_MAX = 8;

export interface EtcdFenceOptions {
  /** What the keys of floors begin with. Default: `leasehold/fence/`. */
  readonly prefix?: string | undefined;
}

export interface EtcdPutOptions {
  /** The key goes with this lease of etcd: its id, as text. */
  readonly lease?: string | undefined;
}

/** What came of a user's transaction whose guard stood. */
export interface EtcdOutcome {
  /** Whether the user's own comparisons held, and so `success` was carried out, or else `failure`. */
  readonly succeeded: boolean;
  /** One for each operation. */
  readonly responses: readonly EtcdOpResponse[];
}

/**
 * Writes that are refused when their token is stale. All reject STALE_TOKEN (nothing was written), LOST and INVALID,
 * UNREACHABLE (nothing was sent), OUTCOME_UNKNOWN (the answer was lost), CONFLICT (the floor was changed by others again and
 * again; nothing was written), and DENIED, LIMIT and NOT_FOUND as etcd refuses.
 */
export interface EtcdFence extends Fence {
  put(lock: Fenced, key: EtcdBytes, value: EtcdBytes, options?: EtcdPutOptions): Promise<void>;
  /** Resolves with whether there was such a key. */
  delete(lock: Fenced, key: EtcdBytes): Promise<boolean>;
  /**
   * A transaction of one's own inside the guarded one: its comparisons choose between `success` and `failure`, and neither is
   * carried out for a stale token. At most 126 operations each, as etcd is set by default.
   *
   * @example
   * const { succeeded } = await fence.txn(lock, {
   *   compare: [versionIs("orders/42", "EQUAL", 1)],
   *   success: [putOp("orders/42", "paid"), putOp("orders/42/by", "anna")],
   *   failure: [rangeOp("orders/42")],
   * });
   */
  txn(lock: Fenced, request: EtcdTxnRequest): Promise<EtcdOutcome>;
}

/**
 * A fence for etcd 3.4 or later. Throws INVALID for wrong options.
 *
 * @example
 * const fence = etcdFence(etcdGateway("http://127.0.0.1:2379"));
 * await client.withLock("orders/42", { fence }, (lock) => fence.put(lock, "orders/42", "paid"));
 */
export function etcdFence(kv: EtcdKv, options: EtcdFenceOptions = {}): EtcdFence {
  return new TransactionFence(kv, options);
}

type Guard = "raised" | "not higher" | "absent";

class TransactionFence implements EtcdFence {
  readonly #kv: EtcdKv;
  readonly #prefix: string;
  readonly #raised = new RaisedFloors();

  constructor(kv: EtcdKv, options: EtcdFenceOptions) {
    checkKeys(options, ["prefix"], "the options of an etcd fence");
    const { prefix = "leasehold/fence/" } = options;
    if (typeof prefix !== "string" || prefix === "" || prefix.length > 256) {
      throw invalid(`the prefix must be text of 1 to 256 characters, not ${show(prefix)}`);
    }
    if (typeof kv?.txn !== "function" || typeof kv.range !== "function") throw invalid("txn and range are needed");
    this.#kv = kv;
    this.#prefix = prefix;
  }

  async raise(lock: Fenced): Promise<void> {
    const holds = holdsOf(lock);
    for (const hold of holds) hold.token; // throws LOST, before anything is sent for any of them
    for (const hold of holds) await unreachableIfUnknown(this.#guarded(hold, []));
  }

  async inspect(resource: string): Promise<Floor> {
    const { kvs } = await this.#kv.range({ key: toBase64(this.#floorKey(resource)) });
    return { resource, floor: floorOf({ kvs }, resource) ?? 0 };
  }

  async reset(resource: string): Promise<void> {
    const key = this.#floorKey(resource);
    this.#raised.forget(resource);
    await unreachableIfUnknown(this.#kv.txn({ success: [deleteOp(key)] }));
  }

  async put(lock: Fenced, key: EtcdBytes, value: EtcdBytes, options: EtcdPutOptions = {}): Promise<void> {
    checkKeys(options, ["lease"], "the options of put");
    const { lease } = options;
    if (lease !== undefined && !(typeof lease === "string" && /^\d{1,19}$/.test(lease))) {
      throw invalid(`lease must be the digits of the id of a lease of etcd, not ${show(lease)}`);
    }
    await this.#write(lock, [putOp(key, value, lease)]);
  }

  async delete(lock: Fenced, key: EtcdBytes): Promise<boolean> {
    const [response] = await this.#write(lock, [deleteOp(key)]);
    return response?.response_delete_range?.deleted === "1";
  }

  async txn(lock: Fenced, request: EtcdTxnRequest): Promise<EtcdOutcome> {
    checkKeys(request, ["compare", "success", "failure"], "the parts of a transaction");
    const { compare = [], success = [], failure = [] } = request;
    if (![compare, success, failure].every(Array.isArray)) throw invalid("the parts of a transaction must be arrays");
    const [response] = await this.#write(lock, [{ request_txn: { compare, success, failure } }]);
    const { succeeded = false, responses = [] } = response?.response_txn ?? {};
    return { succeeded, responses };
  }

  async #write(lock: Fenced, ops: readonly EtcdOp[]): Promise<readonly EtcdOpResponse[]> {
    const hold = holdOf(lock);
    hold.token; // throws LOST
    for (const op of ops) checkWrites(op, this.#prefix);
    return this.#guarded(hold, ops);
  }

  /** Carries out the operations if the token stands, and raises the floor in the same step. Resolves with their answers. */
  async #guarded(hold: Hold, ops: readonly EtcdOp[]): Promise<readonly EtcdOpResponse[]> {
    const { resource, raises } = hold;
    const key = this.#floorKey(resource);
    let guard: Guard = raises && this.#raised.has(resource, hold.token) ? "raised" : "not higher";
    for (let attempt = 0; attempt < ATTEMPTS_MAX; attempt++) {
      const { token } = hold; // throws LOST, also when it is lost by now
      const success = raises && guard !== "raised" ? [...ops, putOp(key, pad(token))] : ops;
      const request = { compare: conditions(guard, key, token), success, failure: [rangeOp(key)] };
      const { succeeded, responses = [] } = await this.#send(request, resource, token);
      if (succeeded) {
        if (raises) this.#raised.add(resource, token);
        return responses.slice(0, ops.length);
      }
      const floor = floorOf(responses[0]?.response_range, resource);
      if (floor !== undefined && floor > token) throw stale(resource, token, floor);
      guard = floor === undefined ? "absent" : "not higher";
    }
    const message = `the floor of ${show(resource)} was changed by others ${ATTEMPTS_MAX} times in a row: nothing was written`;
    throw new FenceError("CONFLICT", message, { resource, token: hold.token });
  }

  async #send(request: EtcdTxnRequest, resource: string, token: number) {
    try {
      return await this.#kv.txn(request);
    } catch (error) {
      if (!FenceError.is(error)) throw error;
      const { code, message, cause = error } = error;
      throw new FenceError(code, `${message} (${show(resource)}, the token ${token})`, { resource, token, cause });
    }
  }

  #floorKey(resource: string): string {
    return this.#prefix + checkResource(resource);
  }
}

const pad = (token: number): string => String(token).padStart(DIGITS, "0");

function conditions(guard: Guard, key: string, token: number): EtcdCompare[] {
  if (guard === "absent") return [versionIs(key, "EQUAL", 0)];
  if (guard === "raised") return [valueIs(key, "EQUAL", pad(token))];
  return [valueIs(key, "LESS", pad(token + 1)), valueIs(key, "GREATER", BELOW_ZERO)]; // 2^53 has 16 digits, too
}

/** Undefined: there is none. Throws INVALID for what is no floor. */
function floorOf(range: EtcdRangeResponse | undefined, resource: string): number | undefined {
  const stored = range?.kvs?.[0];
  if (stored === undefined) return undefined;
  const value = fromBase64(stored.value).toString();
  if (/^\d{16}$/.test(value)) return readToken(value);
  throw invalid(`the floor of ${show(resource)} is ${show(value)}, which is no token: nothing was written`);
}

/** Raising and resetting can be repeated without harm, so it is not of interest whether it has happened. */
async function unreachableIfUnknown<T>(sent: Promise<T>): Promise<T> {
  try {
    return await sent;
  } catch (error) {
    if (!FenceError.is(error, "OUTCOME_UNKNOWN")) throw error;
    const { message, resource, token } = error;
    const of = { ...(resource === undefined ? {} : { resource }), ...(token === undefined ? {} : { token }) };
    throw new FenceError("UNREACHABLE", message, { ...of, cause: error.cause });
  }
}

/** Throws INVALID for an operation that would write keys of the fence, or that has no key. */
function checkWrites(op: EtcdOp, prefix: string): void {
  if (typeof op !== "object" || op === null) throw invalid(`an operation must be an object, not ${show(op)}`);
  for (const part of [...(op.request_txn?.success ?? []), ...(op.request_txn?.failure ?? [])]) {
    checkWrites(part, prefix);
  }
  const write: { key: string; range_end?: string | undefined } | undefined = op.request_put ?? op.request_delete_range;
  if (write === undefined) return;
  const key = fromBase64(write.key);
  if (key.length === 0) throw invalid("a key must not be empty");
  const from = Buffer.from(prefix);
  const isOne = write.range_end === undefined || write.range_end === "";
  const meets = isOne
    ? key.subarray(0, from.length).equals(from)
    : key.compare(after(from)) < 0 && endsAfter(fromBase64(write.range_end), from);
  if (meets) throw invalid(`the key ${show(key.toString())} is one of the fence's own, or the range has some of them`);
}

/** The first key behind all that begin with the prefix. */
function after(prefix: Buffer): Buffer {
  const next = Buffer.from(prefix);
  next[next.length - 1] = (next.at(-1) as number) + 1; // UTF-8 has no byte 0xff
  return next;
}

/** Whether a range that ends there goes beyond a key. A single zero byte means the end of all keys. */
const endsAfter = (end: Buffer, key: Buffer): boolean => end.equals(Buffer.from([0])) || end.compare(key) > 0;

/** LockService.Watch: checks the request, begins the watch and encodes what the watcher is told. */
import { decode, type leasehold, v1, WireError } from "@leasehold/client/wire";
import type { CoreLimits, Refusal } from "../core/types.js";
import { type Demand, everybody, type Identity } from "../security/access.js";
import type { RouteFailure } from "../sequencer/routes.js";
import type { WatchHub } from "../watch/hub.js";
import type { WatchOutput, WatchStart } from "../watch/subscriber.js";
import type { WatchTarget } from "../watch/targets.js";
import { badOptionalText, badText, invalid } from "./check.js";
import { failureOf, internalFailure, type WireFailure } from "./errors.js";
import type { RpcLimits } from "./limits.js";
import type { RequestInfo } from "./request-log.js";
import { Shares } from "./shares.js";
import { WatchEncoder } from "./watch-encode.js";

/** Where the bytes of a watch go. */
export interface WatchPipe {
  /** Returns false when nothing more is accepted before `drained` is called. Does not call back before it returns. */
  write(bytes: Buffer): boolean;
  /** The last call: the stream ends with this status. */
  end(failure: WireFailure): void;
}

/** What the carrier of a watch tells. */
export interface WatchInput {
  /** After `write` returned false: it may be called again. */
  drained(): void;
  /** The client has gone. */
  close(): void;
}

export interface WatchContext {
  readonly watch: WatchHub;
  readonly limits: RpcLimits;
  readonly coreLimits: CoreLimits;
  /** An encoder threw: a bug, for the log. The client has been told INTERNAL. */
  onBug(error: unknown, request?: RequestInfo): void;
  /** A watch was refused: for metrics. */
  onRefusal?(reason: WireFailure["reason"]): void;
}

const nothing: WatchInput = { drained: () => {}, close: () => {} };

/** Watches of all carriers. */
export class WatchEndpoint {
  private readonly shares: Shares;
  private readonly encoder: WatchEncoder;

  constructor(private readonly context: WatchContext) {
    this.encoder = new WatchEncoder(context.limits.listBytesMax);
    this.shares = new Shares("watches", context.limits.watchesPerPrincipalMax);
  }

  /** `refusal`: why this watch is not taken, else null. `identity`: whose it is; absent: a client of this process. */
  open(
    request: Uint8Array,
    pipe: WatchPipe,
    refusal: WireFailure | null = null,
    identity: Identity = everybody,
  ): WatchInput {
    const wanted = refusal ?? this.read(request);
    if ("reason" in wanted) return this.refuse(pipe, wanted);
    const denied = identity.permits(demandOf(wanted.target));
    if (denied !== null) return this.refuse(pipe, failureOf(denied));
    const { name } = identity.principal;
    const giveBack = this.shares.take(name);
    if ("reason" in giveBack) return this.refuse(pipe, giveBack);
    const output = new EncodedOutput(this.context, this.encoder, pipe);
    const watcher = this.context.watch.watch(wanted.target, wanted.start, output, name);
    if ("reason" in watcher) {
      giveBack();
      return this.refuse(pipe, watcher);
    }
    output.watcher = watcher;
    const forget = identity.onWithdrawn((failure) => output.fail(failure));
    output.forget = () => {
      giveBack();
      forget();
    };
    if (output.broken) watcher.close();
    return {
      drained: () => watcher.drained(),
      close: () => {
        output.forget();
        watcher.close();
      },
    };
  }

  /** Ends all watches. */
  closeAll(failure: RouteFailure): void {
    this.context.watch.closeAll(failure);
  }

  private refuse(pipe: WatchPipe, failure: WireFailure): WatchInput {
    this.context.onRefusal?.(failure.reason);
    pipe.end(failure);
    return nothing;
  }

  private read(bytes: Uint8Array): { readonly target: WatchTarget; readonly start: WatchStart } | WireFailure {
    const { frameBytesMax } = this.context.limits;
    if (bytes.length > frameBytesMax) {
      const message = `the request has ${bytes.length} bytes; at most ${frameBytesMax} are allowed`;
      return { reason: "LIMIT", message, retryAfterMs: 0 };
    }
    let message: leasehold.v1.WatchRequest;
    try {
      message = decode(v1.WatchRequest, bytes);
    } catch (error) {
      if (!(error instanceof WireError)) throw error;
      return { reason: "INVALID", message: `the request is malformed: ${error.message}`, retryAfterMs: 0 };
    }
    const target = readTarget(message, this.context.coreLimits.nameBytesMax);
    if (target.kind === "refused") return failureOf(target);
    return { target, start: { after: message.after, fromNow: message.fromNow } };
  }
}

const demandOf = (target: WatchTarget): Demand =>
  target.kind === "name"
    ? { verb: "observe", name: target.name, prefix: false }
    : { verb: "observe", name: target.prefix, prefix: true };

function readTarget(m: leasehold.v1.WatchRequest, nameBytesMax: number): WatchTarget | Refusal {
  const { name, prefix } = m;
  if (name !== null && name !== undefined) {
    return badText("name", name, nameBytesMax) ?? { kind: "name", name };
  }
  if (prefix !== null && prefix !== undefined) {
    return badOptionalText("prefix", prefix, nameBytesMax) ?? { kind: "prefix", prefix };
  }
  return invalid("name or prefix must be set; an empty prefix watches all locks");
}

class EncodedOutput implements WatchOutput {
  watcher: WatchInput | null = null;
  broken = false;
  /** Lets go of what the watch has of its principal. */
  forget: () => void = () => undefined;

  constructor(
    private readonly context: WatchContext,
    private readonly encoder: WatchEncoder,
    private readonly pipe: WatchPipe,
  ) {}

  write(...[entries, position]: Parameters<WatchOutput["write"]>): boolean {
    try {
      return this.pipe.write(this.encoder.response(entries, position, this.context.watch.size > 1));
    } catch (error) {
      this.context.onBug(error);
      this.fail(internalFailure);
      return false;
    }
  }

  end(failure: WireFailure): void {
    this.forget();
    this.pipe.end(failure);
  }

  /** Ends the watch from here. */
  fail(failure: WireFailure): void {
    this.broken = true;
    this.end(failure);
    this.watcher?.close();
  }
}

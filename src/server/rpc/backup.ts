/**
 * AdminService.Backup: streams the bytes of a backup, no faster than the client reads them.
 *
 * One at a time: each holds a snapshot, which keeps the store from giving disk space back. So a client that reads nothing
 * for a while loses its stream, and every stream ends after a time. What is read from the store and not yet sent is one
 * piece, and what the pipe buffers.
 */
import { decode, encode, v1, WireError } from "@leasehold/client/wire";
import { type BackupOrigin, backupChunks } from "../backup/stream.js";
import { JournalCorruptError, type JournalSnapshot } from "../journal/journal.js";
import type { Identity } from "../security/access.js";
import { ADMINISTRATION } from "../security/demands.js";
import type { RouteFailure } from "../sequencer/routes.js";
import { failureOf, internalFailure, type WireFailure } from "./errors.js";
import type { RequestInfo } from "./request-log.js";
import { local, type StreamOwner } from "./session.js";

export const BACKUP = "/leasehold.v1.AdminService/Backup";

/** Where a backup comes from. */
export interface BackupSource {
  /** Rejects while the store cannot be read. */
  snapshot(): Promise<JournalSnapshot>;
  origin(): BackupOrigin;
}

/** Where its bytes go. */
export interface BackupPipe {
  /** Returns false when nothing more is accepted before `drained` is called. Does not call back before it returns. */
  write(bytes: Buffer): boolean;
  /** The last call: the stream ends with this status, or well with null. */
  end(failure: WireFailure | null): void;
}

/** What its carrier tells. */
export interface BackupInput {
  /** After `write` returned false: it may be called again. */
  drained(): void;
  /** The client has gone. */
  close(): void;
}

export interface BackupContext {
  readonly backup?: BackupSource | undefined;
  onBug(error: unknown, request?: RequestInfo): void;
  /** A backup was refused: for metrics. */
  onRefusal?(reason: WireFailure["reason"]): void;
  /** A backup has ended, by whatever: for the log. `failure` null: it is whole. */
  onBackup?(request: RequestInfo, bytes: number, failure: WireFailure | null): void;
  /** Only tests replace them. */
  readonly backupTimes?: BackupTimes | undefined;
}

export interface BackupTimes {
  /** A client that reads nothing for this long is left. */
  readonly stallMsMax: number;
  /** How long a backup may take altogether. */
  readonly totalMsMax: number;
}

const TIMES: BackupTimes = { stallMsMax: 30_000, totalMsMax: 3_600_000 };

const nothing: BackupInput = { drained: () => {}, close: () => {} };

const limit = (message: string, retryAfterMs = 0): WireFailure => ({ reason: "LIMIT", message, retryAfterMs });

export class BackupEndpoint {
  /** The one that is being made. */
  private running: Run | null = null;

  constructor(private readonly context: BackupContext) {}

  /** `refusal`: why it is not made, else null. `owner`: who asks; absent: this process. */
  open(
    request: Uint8Array,
    pipe: BackupPipe,
    refusal: WireFailure | null = null,
    { identity, requestId, address }: StreamOwner = local,
  ): BackupInput {
    const failure = refusal ?? this.refuse(request, identity);
    const source = this.context.backup;
    if (failure !== null || source === undefined) {
      const { reason } = failure ?? internalFailure;
      this.context.onRefusal?.(reason);
      pipe.end(failure ?? internalFailure);
      return nothing;
    }
    const info = { requestId, path: BACKUP, principal: identity.principal.name, address };
    const run = new Run(this.context, source, pipe, info);
    this.running = run;
    const forget = identity.onWithdrawn((withdrawn) => run.stop(withdrawn));
    void run.work().then(() => {
      forget();
      if (this.running === run) this.running = null;
    });
    return run;
  }

  closeAll(failure: RouteFailure): void {
    this.running?.stop(failure);
  }

  private refuse(request: Uint8Array, identity: Identity): WireFailure | null {
    const denied = identity.permits(ADMINISTRATION);
    if (denied !== null) return failureOf(denied);
    try {
      decode(v1.BackupRequest, request);
    } catch (error) {
      if (!(error instanceof WireError)) throw error;
      return { reason: "INVALID", message: `the request is malformed: ${error.message}`, retryAfterMs: 0 };
    }
    return this.running === null ? null : limit("a backup is being made already", 10_000);
  }
}

/** One backup. */
class Run implements BackupInput {
  private bytes = 0;
  /** Not null: why it is to end before its end. */
  private failure: WireFailure | null = null;
  private gone = false;
  /** Lets the work go on, which waits for the client or for the end. */
  private wake: () => void = () => undefined;

  constructor(
    private readonly context: BackupContext,
    private readonly source: BackupSource,
    private readonly pipe: BackupPipe,
    private readonly info: RequestInfo,
  ) {}

  drained(): void {
    this.wake();
  }

  close(): void {
    this.gone = true;
    this.stop({ reason: "CLOSED", message: "the client has gone", retryAfterMs: 0 });
  }

  /** Ends it from here. */
  stop(failure: WireFailure): void {
    this.failure ??= failure;
    this.wake();
  }

  /** Never rejects. */
  async work(): Promise<void> {
    const { totalMsMax } = this.context.backupTimes ?? TIMES;
    const late = () => this.stop(limit(`the backup has taken more than ${totalMsMax / 60_000} minutes`));
    const timer = setTimeout(late, totalMsMax);
    try {
      await this.send();
    } catch (error) {
      this.failure ??= this.failureOf(error);
    }
    clearTimeout(timer);
    if (!this.gone) this.pipe.end(this.failure);
    if (this.failure !== null && !this.gone) this.context.onRefusal?.(this.failure.reason);
    this.context.onBackup?.(this.info, this.bytes, this.failure);
  }

  private async send(): Promise<void> {
    const snapshot = await this.source.snapshot();
    try {
      for await (const data of backupChunks(snapshot, this.source.origin())) {
        if (this.failure !== null) return;
        this.bytes += data.length;
        if (!this.pipe.write(encode(v1.BackupResponse, { data }))) await this.roomForMore();
      }
    } finally {
      await snapshot.close();
    }
  }

  private async roomForMore(): Promise<void> {
    const { stallMsMax } = this.context.backupTimes ?? TIMES;
    const stalled = () => this.stop(limit(`the client has read nothing for ${stallMsMax / 1_000} s`));
    const timer = setTimeout(stalled, stallMsMax);
    await new Promise<void>((resolve) => {
      this.wake = resolve;
      if (this.failure !== null) resolve();
    });
    clearTimeout(timer);
  }

  private failureOf(error: unknown): WireFailure {
    const message = `the store cannot be read: ${error instanceof Error ? error.message : String(error)}`;
    if (error instanceof JournalCorruptError) this.context.onBug(error, this.info); // for the log: the store is damaged
    return { reason: "STORE_DOWN", message, retryAfterMs: 1_000 };
  }
}

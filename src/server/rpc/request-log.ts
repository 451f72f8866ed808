/**
 * What the log tells of requests: one line each at the level "debug", and whatever went wrong in the server itself. Every
 * line has the request id that the audit log has, too, and that an error tells its caller.
 */
import type { Logger } from "../log.js";
import type { WireReason } from "./errors.js";

/** A call, or a stream. */
export interface RequestInfo {
  readonly requestId: string;
  /** "/leasehold.v1.LockService/Acquire" */
  readonly path: string;
  /** "": not known, or authentication is off. */
  readonly principal: string;
  /** "127.0.0.1:53000" */
  readonly address: string;
  /** What an administrator has asked for. */
  readonly act?: AdministrativeAct | undefined;
}

/** For the audit log, with what it is about. */
export interface AdministrativeAct {
  readonly event: "force_release" | "backup" | "log_level";
  readonly [detail: string]: string | number | boolean;
}

export class RequestLog {
  readonly #log: Logger | undefined;

  constructor(log: Logger | undefined) {
    this.#log = log;
  }

  /** A call was answered, or a stream has ended. `durationMs` since it came. */
  ended({ requestId, path, principal }: RequestInfo, reason: WireReason | "OK", durationMs: number): void {
    // Asked first, as this is called for every request.
    if (!this.#log?.isLevelEnabled("debug")) return;
    const ms = Math.round(durationMs * 1_000) / 1_000;
    this.#log.debug({ requestId, rpc: path, principal, reason, durationMs: ms }, "a request has ended");
  }

  bug(error: unknown, info?: RequestInfo): void {
    const { requestId, path: rpc, principal } = info ?? {};
    this.#log?.error({ err: error, requestId, rpc, principal }, "a request made the server throw; this is a bug");
  }
}

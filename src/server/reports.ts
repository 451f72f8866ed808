/** What is told of requests, and to whom: the metrics, the log, the audit log. */
import type { Logger, LogLevel } from "./log.js";
import type { ServerMetrics } from "./metrics/server-metrics.js";
import type { ForcedRelease } from "./ops/api/context.js";
import type { WireFailure, WireReason } from "./rpc/errors.js";
import { type RequestInfo, RequestLog } from "./rpc/request-log.js";
import type { AuditLog } from "./security/audit.js";

export class Reports {
  readonly #log: Logger | undefined;
  readonly #metrics: ServerMetrics;
  readonly #audit: AuditLog;
  readonly #requests: RequestLog;

  constructor(log: Logger | undefined, metrics: ServerMetrics, audit: AuditLog) {
    this.#log = log;
    this.#metrics = metrics;
    this.#audit = audit;
    this.#requests = new RequestLog(log);
  }

  bug(error: unknown, request?: RequestInfo): void {
    this.#requests.bug(error, request);
  }

  /** A call was answered. */
  answered(request: RequestInfo, reason: WireReason | "OK", durationMs: number): void {
    this.#metrics.rpc(request.path, reason, durationMs);
    this.#requests.ended(request, reason, durationMs);
    this.#act(request, reason);
  }

  streamEnded(request: RequestInfo, reason: WireReason | "OK", durationMs: number): void {
    this.#requests.ended(request, reason, durationMs);
  }

  /** `failure` null: it is whole. */
  backup(request: RequestInfo, bytes: number, failure: WireFailure | null): void {
    const { requestId, principal } = request;
    this.#act({ ...request, act: { event: "backup", bytes } }, failure?.reason ?? "OK");
    const about = { requestId, principal, bytes, reason: failure?.reason };
    if (failure === null) this.#log?.info(about, "a backup was made");
    else this.#log?.warn(about, `a backup has failed: ${failure.message}`);
  }

  /** Somebody at the console has taken a lock away, or has tried to. */
  forced({ name: lock, result, tokens: _, ...act }: ForcedRelease): void {
    if (result === "DENIED") return; // access control has written that down
    this.#audit.act({ event: "force_release", lock, ...act, outcome: result, by: "console" });
  }

  /** Sets what is logged from now on, and returns what was until now. */
  setLogLevel(level: LogLevel): LogLevel {
    const before = (this.#log?.level ?? "silent") as LogLevel;
    if (this.#log === undefined) return before;
    if (before !== level) this.#log.warn({ from: before, to: level }, "the level of the log is changed");
    this.#log.level = level;
    return before;
  }

  #act({ act, principal, address, requestId }: RequestInfo, outcome: string): void {
    if (act !== undefined) this.#audit.act({ ...act, principal, address, requestId, outcome });
  }
}

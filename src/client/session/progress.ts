/**
 * Reports of progress on their way to the server.
 *
 * A report rides on the next frame, but no two of one lease follow each other sooner than a tenth of the time in which it
 * is to report; one that has to wait for that gets a frame of its own then. A report that was not answered before its
 * stream broke is made again on the next.
 */
import type { SessionLease } from "./session-lease.js";

interface Report {
  /** When the last one was sent on this stream. */
  sentAtMs: number;
  /** There is something to tell. */
  pending: boolean;
  /** The last one was answered. */
  confirmed: boolean;
}

const spacingMs = (lease: SessionLease): number => lease.progressEveryMs / 10;

export class ProgressReports {
  /** Of leases that are alive. */
  readonly #reports = new Map<SessionLease, Report>();

  report(lease: SessionLease): void {
    const report = this.#reports.get(lease);
    if (report) report.pending = true;
    else this.#reports.set(lease, { sentAtMs: Number.NEGATIVE_INFINITY, pending: true, confirmed: true });
  }

  forget(lease: SessionLease): void {
    this.#reports.delete(lease);
  }

  /** A new stream. */
  reset(): void {
    for (const report of this.#reports.values()) {
      report.sentAtMs = Number.NEGATIVE_INFINITY;
      if (!report.confirmed) report.pending = true;
      report.confirmed = true;
    }
  }

  /** When a frame must go out for a report; infinite: there is none. */
  get dueAtMs(): number {
    let dueAtMs = Number.POSITIVE_INFINITY;
    for (const [lease, { sentAtMs, pending }] of this.#reports)
      if (pending) dueAtMs = Math.min(dueAtMs, sentAtMs + spacingMs(lease));
    return dueAtMs;
  }

  /** The leases to report for in a frame that is sent now, by the numbers of their creations. */
  take(nowMs: number): number[] {
    const taken: number[] = [];
    for (const [lease, report] of this.#reports) {
      if (!report.pending || nowMs < report.sentAtMs + spacingMs(lease)) continue;
      report.pending = false;
      report.confirmed = false;
      report.sentAtMs = nowMs;
      taken.push(lease.seq);
    }
    return taken;
  }

  /** The server has answered a frame sent at `sentAtMs` for this lease. */
  answered(lease: SessionLease, sentAtMs: number): void {
    const report = this.#reports.get(lease);
    if (report && sentAtMs >= report.sentAtMs) report.confirmed = true;
  }
}

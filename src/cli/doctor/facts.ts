/** What `leasehold doctor` has found out, before anything is made of it. */
import type { leasehold } from "@leasehold/client/wire";

/** How long a write of 4 KiB takes to be durable, in milliseconds. */
export interface SyncTimes {
  readonly path: string;
  readonly writes: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
}

/** `Diagnosis` of the wire, complete. */
export interface Diagnosis {
  readonly loopLagMsP99: number;
  readonly loopLagMsMax: number;
  readonly commitMsP50: number;
  readonly commitMsP99: number;
  /** 0: nothing was written. */
  readonly commitMsMax: number;
  /** The one that is used most first. */
  readonly limits: readonly { readonly limit: string; readonly used: number; readonly max: number }[];
  readonly certificates: readonly Certificate[];
  /** 0: not known. */
  readonly storeFreeBytes: number;
  readonly wallClockMs: number;
  readonly nodeVersion: string;
  readonly authentication: boolean;
  readonly encryption: boolean;
  readonly openFiles: number;
  /** 0: not known. */
  readonly openFilesMax: number;
}

export interface Certificate {
  readonly listener: string;
  readonly subject: string;
  readonly notAfterMs: number;
}

export interface Facts {
  readonly address: string;
  /** Only this machine can reach the server. */
  readonly local: boolean;
  readonly clientVersion: string;
  readonly status: leasehold.v1.StatusResponse;
  /** Null: the server tells nothing of it. */
  readonly diagnosis: Diagnosis | null;
  /** The fastest of several calls. */
  readonly roundTripMs: number;
  /** This machine's wall clock when the fastest call was half way; in ms since 1970. */
  readonly halfWayWallMs: number;
  /** Null: nobody asked for it. */
  readonly sync: SyncTimes | null;
}

/** What a status tells of the server's health; null: nothing, as it is older than this command line. */
export function diagnosisOf({ diagnosis: d }: leasehold.v1.StatusResponse): Diagnosis | null {
  if (!d) return null;
  return {
    loopLagMsP99: d.loopLagMsP99 ?? 0,
    loopLagMsMax: d.loopLagMsMax ?? 0,
    commitMsP50: d.commitMsP50 ?? 0,
    commitMsP99: d.commitMsP99 ?? 0,
    commitMsMax: d.commitMsMax ?? 0,
    limits: (d.limits ?? []).map(({ limit, used, max }) => ({ limit: limit ?? "", used: used ?? 0, max: max ?? 0 })),
    certificates: (d.certificates ?? []).map(({ listener, subject, notAfterMs }) => ({
      listener: listener ?? "",
      subject: subject ?? "",
      notAfterMs: notAfterMs ?? 0,
    })),
    storeFreeBytes: d.storeFreeBytes ?? 0,
    wallClockMs: d.wallClockMs ?? 0,
    nodeVersion: d.nodeVersion ?? "",
    authentication: d.authentication ?? false,
    encryption: d.encryption ?? false,
    openFiles: d.openFiles ?? 0,
    openFilesMax: d.openFilesMax ?? 0,
  };
}

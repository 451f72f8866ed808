/** What a backup file holds, for people and for programs; and its errors as those of the command line. */
import { BackupUnreadableError } from "../server/backup/reader.js";
import type { ReadBackup } from "../server/backup/restore.js";
import { CliError } from "./common.js";
import { duration, plain, size } from "./output.js";

/** As in sysexits.h: the data is wrong. */
export const UNREADABLE = 65;

const whole = (n: number) => n.toLocaleString("en-US");

export function backupRows({ summary, restoration }: ReadBackup): [string, string][] {
  const { header, entries, bytes, sha256 } = summary;
  const { leases, locks, holds, waiters, lastToken, incarnation } = restoration.contents;
  const agoMs = Date.now() - header.takenWallMs;
  return [
    ["taken", `${new Date(header.takenWallMs).toISOString()}, ${duration(agoMs)} ago`],
    ["cluster", `${header.clusterId}, start ${whole(incarnation)}, Leasehold ${plain(header.server)}`],
    ["locks", `${whole(locks)} held (${whole(holds)} grants, ${whole(waiters)} waiting)`],
    ["leases", whole(leases)],
    ["last token", String(lastToken)],
    ["longest lease", duration(header.ttlMsMax)],
    ["file", `${size(bytes)}, ${whole(entries)} entries up to record ${whole(header.seq)}`],
    ["SHA-256", sha256],
  ];
}

export function backupForJson({ summary, restoration }: ReadBackup) {
  const { header, entries, bytes, sha256 } = summary;
  const { clusterId, seq, storeFormat, ttlMsMax, takenWallMs, server } = header;
  const takenAt = new Date(takenWallMs).toISOString();
  return {
    ...{ clusterId, takenAt, server, storeFormat, record: seq, ttlMsMax, entries, bytes, sha256 },
    ...restoration.contents,
  };
}

/** Reads; what is wrong with the file becomes one line with its name. */
export async function reading<T>(name: string, work: Promise<T>): Promise<T> {
  try {
    return await work;
  } catch (error) {
    if (error instanceof BackupUnreadableError) throw new CliError(`${name} ${plain(error.message)}`, UNREADABLE);
    if (error instanceof Error && "syscall" in error) throw new CliError(`leasehold: ${error.message}`, UNREADABLE);
    throw error;
  }
}

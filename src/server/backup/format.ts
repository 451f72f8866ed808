/**
 * A backup file.
 *
 *     leasehold-backup 1 {"clusterId":"…","seq":7,…}      what it is: `BackupHeader`
 *     <key>\t<value>                                      the entries of the journal, in any order, each once
 *     #<crc-32>                                           a mark, after every 64 KiB or so, and after the last entry
 *     end <entries> <sha-256>                             the trailer
 *
 * Text, a line each, ended by a newline. Keys and values hold no control characters, so nothing is escaped, and only an
 * entry has a tab. A mark holds the CRC-32 of everything before it: whoever reads a damaged file can say between which
 * two marks, and gets no entry that no mark has vouched for. The trailer holds the SHA-256 of everything before it, and
 * nothing may follow: a file that was cut has none.
 *
 * The version counts changes of this file. What the entries mean has a version of its own, `storeFormat`.
 */
import { createHash } from "node:crypto";
import { crc32 } from "node:zlib";
import type { Entry } from "../journal/journal.js";

export const BACKUP_VERSION = 1;
export const MAGIC = "leasehold-backup";
/** A mark follows when this much has come since the last one. */
export const MARK_BYTES = 64 * 1024;
/** The longest entry. Those of the core are far shorter: what a session remembers is most, some megabytes at worst. */
export const LINE_BYTES_MAX = 32 * 1024 * 1024;
export const HEADER_BYTES_MAX = 4 * 1024;

/** Everything that is known of a backup but its entries. */
export interface BackupHeader {
  /** The identity of the store. */
  readonly clusterId: string;
  /** The last record of the journal that is in it. */
  readonly seq: number;
  /** The version of the entries. */
  readonly storeFormat: number;
  /** The longest lease that the server permitted, in ms: for how long somebody may believe to hold a lock. */
  readonly ttlMsMax: number;
  /** Wall-clock time in ms since 1970, for people. */
  readonly takenWallMs: number;
  /** The version of the server. */
  readonly server: string;
}

export const crcText = (crc: number): string => crc.toString(16).padStart(8, "0");

/** Turns entries into the bytes of a file. */
export class BackupEncoder {
  readonly #sha = createHash("sha256");
  #crc = 0;
  #sinceMark = 0;
  #entries = 0;

  header(header: BackupHeader): Buffer {
    return this.#add(`${MAGIC} ${BACKUP_VERSION} ${JSON.stringify(header)}\n`);
  }

  /** Throws for an entry that is too long. */
  entries(entries: readonly Entry[]): Buffer {
    let text = "";
    for (const [key, value] of entries) {
      if (key.length + value.length > LINE_BYTES_MAX / 3 - 2)
        throw new Error(`entry "${key}" is too long for a backup`);
      text += `${key}\t${value}\n`;
    }
    this.#entries += entries.length;
    const bytes = this.#add(text);
    return this.#sinceMark < MARK_BYTES ? bytes : Buffer.concat([bytes, this.#mark()]);
  }

  end(): Buffer {
    const mark = this.#mark();
    const trailer = `end ${this.#entries} ${this.#sha.digest("hex")}\n`;
    return Buffer.concat([mark, Buffer.from(trailer, "latin1")]);
  }

  #mark(): Buffer {
    const bytes = this.#add(`#${crcText(this.#crc)}\n`);
    this.#sinceMark = 0;
    return bytes;
  }

  #add(text: string): Buffer {
    const bytes = Buffer.from(text, "utf8");
    this.#sha.update(bytes);
    this.#crc = crc32(bytes, this.#crc);
    this.#sinceMark += bytes.length;
    return bytes;
  }
}

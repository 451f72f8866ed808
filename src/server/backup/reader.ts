/** Reads a backup file, and believes none of it before it is verified. */
import { createHash } from "node:crypto";
import { crc32 } from "node:zlib";
import type { Entry } from "../journal/journal.js";
import {
  BACKUP_VERSION,
  type BackupHeader,
  crcText,
  HEADER_BYTES_MAX,
  LINE_BYTES_MAX,
  MAGIC,
  MARK_BYTES,
} from "./format.js";

/** What cannot be read as a backup. `message` says where, in one line. */
export class BackupUnreadableError extends Error {
  override readonly name = "BackupUnreadableError";
}

/** What a whole file turned out to be. */
export interface BackupSummary {
  readonly header: BackupHeader;
  readonly entries: number;
  readonly bytes: number;
  readonly sha256: string;
}

const NEWLINE = 10;
const TAB = 9;
/** No block is longer: an entry may begin just before a mark is due. */
const BLOCK_BYTES_MAX = MARK_BYTES + 2 * LINE_BYTES_MAX;

/**
 * Takes a file in pieces. `onEntries` gets the entries of one block after the other, each as soon as its mark has vouched
 * for it; that the file is whole is known only when `end` has returned. Every method throws `BackupUnreadableError`.
 */
export class BackupReader {
  readonly #onEntries: (entries: readonly Entry[]) => void;
  readonly #sha = createHash("sha256");
  /** Bytes that are not verified yet: they begin behind a mark, or at the begin of the file. */
  #block: Buffer = Buffer.alloc(0);
  /** Up to where lines of the block have been read. */
  #at = 0;
  /** Where the block begins in the file. */
  #blockAt = 0;
  #crc = 0;
  #entries = 0;
  #pending: Entry[] = [];
  #header: BackupHeader | undefined;
  /** The trailer. */
  #end: { readonly entries: number; readonly sha256: string } | undefined;
  #last: "entry" | "mark" = "entry";

  constructor(onEntries: (entries: readonly Entry[]) => void = () => undefined) {
    this.#onEntries = onEntries;
  }

  /** What the file says of itself; undefined until its first block has been verified. */
  get header(): BackupHeader | undefined {
    return this.#entries > 0 || this.#blockAt > 0 ? this.#header : undefined;
  }

  push(chunk: Buffer): void {
    if (chunk.length === 0) return;
    this.#block = this.#block.length === 0 ? chunk : Buffer.concat([this.#block, chunk]);
    for (;;) {
      const newline = this.#block.indexOf(NEWLINE, this.#at);
      if (newline < 0) break;
      this.#line(this.#at, newline);
    }
    if (this.#header === undefined && this.#block.length > HEADER_BYTES_MAX) throw unreadable("is no backup");
    if (this.#block.length > BLOCK_BYTES_MAX) throw this.#damaged("has no mark where there must be one");
  }

  end(): BackupSummary {
    const bytes = this.#blockAt + this.#block.length;
    if (this.#header === undefined) throw unreadable(bytes === 0 ? "is empty" : "is no backup");
    if (this.#end === undefined) throw unreadable(`is cut short: it ends at byte ${bytes}, without a trailer`);
    if (this.#at < this.#block.length)
      throw unreadable(`goes on behind its trailer, at byte ${this.#blockAt + this.#at}`);
    return { header: this.#header, entries: this.#entries, bytes, sha256: this.#end.sha256 };
  }

  #line(from: number, to: number): void {
    if (this.#end !== undefined) {
      throw unreadable(`goes on behind its trailer, at byte ${this.#blockAt + from}`);
    }
    const block = this.#block;
    this.#at = to + 1;
    if (this.#header === undefined) {
      this.#header = readHeader(block.toString("utf8", from, to));
      return;
    }
    const tab = block.indexOf(TAB, from);
    if (tab >= 0 && tab < to) {
      this.#pending.push([block.toString("utf8", from, tab), block.toString("utf8", tab + 1, to)]);
      this.#last = "entry";
      return;
    }
    const text = block.toString("latin1", from, to);
    if (text.startsWith("#")) this.#mark(text, from);
    else this.#trailer(text, from);
  }

  #mark(text: string, from: number): void {
    const crc = crc32(this.#block.subarray(0, from), this.#crc);
    if (text !== `#${crcText(crc)}`) throw this.#damaged("is damaged", from);
    this.#sha.update(this.#block.subarray(0, this.#at));
    this.#crc = crc32(this.#block.subarray(from, this.#at), crc);
    this.#blockAt += this.#at;
    this.#block = this.#block.subarray(this.#at);
    this.#at = 0;
    this.#entries += this.#pending.length;
    const verified = this.#pending;
    this.#pending = [];
    this.#last = "mark";
    if (verified.length > 0) this.#onEntries(verified);
  }

  #trailer(text: string, from: number): void {
    const match = /^end (0|[1-9]\d{0,15}) ([0-9a-f]{64})$/.exec(text);
    if (match === null || this.#last !== "mark") throw this.#damaged("is damaged", from + text.length);
    const [, entries, sha256 = ""] = match;
    if (Number(entries) !== this.#entries) {
      throw unreadable(`is damaged: it holds ${this.#entries} entries, and its trailer says ${entries}`);
    }
    if (this.#sha.digest("hex") !== sha256) throw unreadable("is damaged: its SHA-256 is not what its trailer says");
    this.#end = { entries: this.#entries, sha256 };
  }

  #damaged(what: string, to = this.#block.length): BackupUnreadableError {
    return unreadable(`${what}, between byte ${this.#blockAt} and byte ${this.#blockAt + to}`);
  }
}

const unreadable = (text: string) => new BackupUnreadableError(text);

function readHeader(line: string): BackupHeader {
  const match = /^leasehold-backup (\d{1,9}) (\{.*\})$/.exec(line);
  if (match === null) throw unreadable(line.startsWith(MAGIC) ? "is damaged in its first line" : "is no backup");
  if (Number(match[1]) !== BACKUP_VERSION) {
    throw unreadable(`is a backup of version ${match[1]}; this Leasehold reads version ${BACKUP_VERSION}`);
  }
  const header = parse(match[2] as string);
  if (!isHeader(header)) throw unreadable("is damaged in its first line");
  return header;
}

function parse(json: string): unknown {
  try {
    return JSON.parse(json);
  } catch {
    return undefined;
  }
}

const isCount = (value: unknown): boolean => Number.isSafeInteger(value) && (value as number) >= 0;

function isHeader(value: unknown): value is BackupHeader {
  if (typeof value !== "object" || value === null) return false;
  const { clusterId, seq, storeFormat, ttlMsMax, takenWallMs, server } = value as Record<string, unknown>;
  const texts = typeof clusterId === "string" && /^[0-9a-f]{32}$/.test(clusterId) && typeof server === "string";
  return texts && [seq, storeFormat, ttlMsMax, takenWallMs].every(isCount);
}

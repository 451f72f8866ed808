/**
 * The file of the audit log. Lines are added while nobody waits; what the disk does not take is lost, counted and reported, and
 * the next lines are tried again. (pino's own destination tries a full disk again for ever when it is closed.)
 */
import { closeSync, openSync } from "node:fs";
import { type FileHandle, open } from "node:fs/promises";
import type { AuditSink } from "./audit.js";
import { UnusableFileError } from "./files.js";

const MODE = 0o600;

export class AuditFile implements AuditSink {
  readonly #path: string;
  readonly #waitingBytesMax: number;
  readonly #onError: (error: unknown) => void;
  #waiting: string[] = [];
  #waitingBytes = 0;
  #lost = 0;
  #file: FileHandle | null = null;
  #moved = false;
  #failing = false;
  #writing: Promise<void> | null = null;

  /** Throws an `UnusableFileError`. `onError` is called once for every time that writing begins to fail. */
  constructor(path: string, waitingBytesMax: number, onError: (error: unknown) => void) {
    this.#path = path;
    this.#waitingBytesMax = waitingBytesMax;
    this.#onError = onError;
    try {
      closeSync(openSync(path, "a", MODE));
    } catch (error) {
      throw new UnusableFileError("auditLog", path, `it cannot be written (${(error as NodeJS.ErrnoException).code})`);
    }
  }

  write(line: string): boolean {
    const bytes = Buffer.byteLength(line);
    if (this.#waitingBytes + bytes > this.#waitingBytesMax) return false;
    this.#waiting.push(line);
    this.#waitingBytes += bytes;
    this.#writing ??= this.#writeAll();
    return true;
  }

  reopen(): void {
    this.#moved = true;
  }

  lost(): number {
    const lost = this.#lost;
    this.#lost = 0;
    return lost;
  }

  async close(): Promise<void> {
    await this.#writing;
    await this.#file?.close().catch(() => undefined);
    this.#file = null;
  }

  async #writeAll(): Promise<void> {
    while (this.#waiting.length > 0) {
      const lines = this.#waiting;
      this.#waiting = [];
      try {
        await this.#append(lines.join(""));
        this.#failing = false;
      } catch (error) {
        this.#lost += lines.length;
        if (!this.#failing) this.#onError(error);
        this.#failing = true;
      }
      this.#waitingBytes = this.#waiting.reduce((sum, line) => sum + Buffer.byteLength(line), 0);
    }
    this.#writing = null;
  }

  async #append(text: string): Promise<void> {
    if (this.#moved) {
      this.#moved = false;
      await this.#file?.close().catch(() => undefined);
      this.#file = null;
    }
    this.#file ??= await open(this.#path, "a", MODE);
    await this.#file.appendFile(text);
  }
}

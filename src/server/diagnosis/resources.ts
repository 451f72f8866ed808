/**
 * What the machine has left for the server: space on the disk of the store, and open files. Read every ten seconds and
 * kept, so that no scrape and no call waits for a file system that hangs.
 */
import { readdir, readFile, statfs } from "node:fs/promises";

const PERIOD_MS = 10_000;

/** Undefined: not known, or there is no such thing. */
export interface ResourceFigures {
  readonly storeFreeBytes?: number | undefined;
  readonly openFiles?: number | undefined;
  readonly openFilesMax?: number | undefined;
}

export class Resources {
  readonly #directory: string | undefined;
  #figures: ResourceFigures = {};
  #timer: NodeJS.Timeout | undefined;
  #reading: Promise<void> | undefined;

  /** `directory`: of the store; undefined: it is not on disk. */
  constructor(directory: string | undefined) {
    this.#directory = directory;
  }

  get latest(): ResourceFigures {
    return this.#figures;
  }

  /** Does not keep the process alive. */
  start(): void {
    if (this.#timer !== undefined) return;
    this.#timer = setInterval(() => void this.refresh(), PERIOD_MS);
    this.#timer.unref();
    void this.refresh();
  }

  stop(): void {
    clearInterval(this.#timer);
    this.#timer = undefined;
  }

  /** Reads anew; while that is under way, nothing is read a second time. Never rejects. */
  refresh(): Promise<void> {
    this.#reading ??= this.#read().finally(() => {
      this.#reading = undefined;
    });
    return this.#reading;
  }

  async #read(): Promise<void> {
    const [storeFreeBytes, openFiles, openFilesMax] = await Promise.all([
      this.#directory === undefined ? undefined : known(freeBytes(this.#directory)),
      known(countOpenFiles()),
      known(readOpenFilesMax()),
    ]);
    this.#figures = { storeFreeBytes, openFiles, openFilesMax };
  }
}

const known = <T>(reading: Promise<T>): Promise<T | undefined> => reading.catch(() => undefined);

/** What an unprivileged process may still write. */
async function freeBytes(directory: string): Promise<number> {
  const { bavail, bsize } = await statfs(directory);
  return bavail * bsize;
}

/** Linux, and with /dev/fd the systems that descend from BSD. */
async function countOpenFiles(): Promise<number> {
  const names = await readdir("/proc/self/fd").catch(() => readdir("/dev/fd"));
  return Math.max(0, names.length - 1); // one was open to read the folder
}

async function readOpenFilesMax(): Promise<number | undefined> {
  const text = await readFile("/proc/self/limits", "latin1");
  const soft = /^Max open files\s+(\d+)/m.exec(text)?.[1];
  return soft === undefined ? undefined : Number(soft);
}

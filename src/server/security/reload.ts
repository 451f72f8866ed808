/**
 * Reads files again when they change, and when it is told to (SIGHUP).
 *
 * Each file's identity is looked at once a second, instead of waiting for notifications: Kubernetes replaces files by
 * exchanging a symbolic link some folders above, editors by renaming, and network file systems notify of nothing. What
 * `stat` tells is taken before the file is read, so a change during the reading is seen at the next look.
 *
 * What cannot be used is told in the log, once, and what was read before stays in force: a typing error must not lock
 * everybody out. It is read again when it changes again. Several files that belong together, as a certificate and its
 * key, may be seen half replaced; then that is what the log says, and a second later all is well.
 */
import { stat } from "node:fs/promises";
import type { Logger } from "../log.js";

/** Something that was read from files. */
export interface Reloadable {
  /** For the log: "the certificate". */
  readonly what: string;
  readonly files: readonly string[];
  /** Reads the files and puts into force what is in them. Rejects, and changes nothing, when that cannot be done. */
  load(): Promise<void>;
}

export interface ReloaderOptions {
  readonly log?: Logger | undefined;
  readonly pollMs?: number | undefined;
}

const POLL_MS = 1_000;

interface Watched {
  readonly item: Reloadable;
  identity: string;
}

export class Reloader {
  readonly #log: Logger | undefined;
  readonly #pollMs: number;
  readonly #watched: Watched[] = [];
  /** One look at a time, so that an older content never replaces a newer one. */
  #last: Promise<void> = Promise.resolve();
  #timer: NodeJS.Timeout | undefined;
  #stopped = false;

  constructor(options: ReloaderOptions = {}) {
    this.#log = options.log;
    this.#pollMs = options.pollMs ?? POLL_MS;
  }

  /** Whether there is anything to reload. */
  get empty(): boolean {
    return this.#watched.length === 0;
  }

  /** Loads it for the first time, and watches its files from then on. Rejects as `load` does. */
  async add(item: Reloadable): Promise<void> {
    const identity = await identityOf(item.files);
    await item.load();
    this.#watched.push({ item, identity });
    if (!this.#stopped) this.#timer ??= this.#schedule();
  }

  /** Reads everything again, changed or not. Resolves when that is done. */
  reload(): Promise<void> {
    return this.#look(true);
  }

  /** Reads again what has changed. Resolves when that is done. */
  poll(): Promise<void> {
    return this.#look(false);
  }

  stop(): void {
    this.#stopped = true;
    clearTimeout(this.#timer);
  }

  #schedule(): NodeJS.Timeout {
    const timer = setTimeout(() => {
      void this.poll().then(() => {
        if (!this.#stopped) this.#timer = this.#schedule();
      });
    }, this.#pollMs);
    return timer.unref();
  }

  #look(all: boolean): Promise<void> {
    this.#last = this.#last.then(async () => {
      for (const watched of this.#watched) await this.#lookAt(watched, all);
    });
    return this.#last;
  }

  async #lookAt(watched: Watched, all: boolean): Promise<void> {
    const { item } = watched;
    const identity = await identityOf(item.files);
    if (this.#stopped || (!all && identity === watched.identity)) return;
    watched.identity = identity;
    try {
      await item.load();
      this.#log?.info({ files: item.files }, `${item.what}: read again`);
    } catch (error) {
      this.#log?.error(`${item.what}: not changed, because of ${error instanceof Error ? error.message : error}`);
    }
  }
}

/** Changes whenever one of the files does, or is replaced by another. */
async function identityOf(files: readonly string[]): Promise<string> {
  return (await Promise.all(files.map(identity))).join("\n");
}

async function identity(file: string): Promise<string> {
  try {
    const { dev, ino, size, mtimeNs, ctimeNs } = await stat(file, { bigint: true });
    return [dev, ino, size, mtimeNs, ctimeNs].join("/");
  } catch (error) {
    return String((error as NodeJS.ErrnoException).code);
  }
}

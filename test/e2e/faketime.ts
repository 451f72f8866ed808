/**
 * Processes whose wall clock is wrong: libfaketime, preloaded, answers for the system's. The clock that measures elapsed
 * time is left alone, as it is when an administrator or NTP sets a machine's time.
 */
import { execFileSync } from "node:child_process";
import { rename, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { need } from "../services/packages.mjs";
import { temporaryFolder } from "./support.js";

const TRIES = 10;
let library: string | undefined;

/**
 * The wrapper knows where the library is. It leaves a semaphore behind that is named by its process id, and refuses to
 * start when one with the same id has left its own: another try has another id.
 */
function libraryOf(faketime: string): string {
  for (let i = 1; ; i++) {
    try {
      return execFileSync(faketime, ["-m", "-f", "+0", "printenv", "LD_PRELOAD"], { encoding: "utf8" }).trim();
    } catch (error) {
      if (i === TRIES || !String(error).includes("File exists")) throw error;
    }
  }
}

export class FakeClock {
  readonly #file: string;
  /** For the processes that are to go by this clock. */
  readonly env: NodeJS.ProcessEnv;

  private constructor(file: string, preload: string) {
    this.#file = file;
    this.env = {
      ...process.env,
      LD_PRELOAD: preload,
      FAKETIME_TIMESTAMP_FILE: file,
      FAKETIME_NO_CACHE: "1", // it looks into the file whenever it is asked for the time
      FAKETIME_DONT_FAKE_MONOTONIC: "1",
    };
  }

  /** A clock that is ahead by so much. */
  static async ahead(ms: number): Promise<FakeClock> {
    library ??= libraryOf(await need("faketime"));
    const clock = new FakeClock(join(await temporaryFolder(), "faketime"), library);
    await clock.set(ms);
    return clock;
  }

  /** Sets it, while processes go by it. */
  async set(aheadMs: number): Promise<void> {
    // Another process must not find half of it.
    await writeFile(`${this.#file}.new`, `${aheadMs < 0 ? "-" : "+"}${Math.abs(aheadMs) / 1_000}s\n`);
    await rename(`${this.#file}.new`, this.#file);
  }
}

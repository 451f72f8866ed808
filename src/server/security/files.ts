/** Files that the server depends on: read with a bound, and named in what is said about them. */
import { open } from "node:fs/promises";

/** A file of the configuration that cannot be used. The message is one line for the operator, without any secret. */
export class UnusableFileError extends Error {
  override readonly name = "UnusableFileError";

  constructor(option: string, file: string, problem: string) {
    super(`${option}: ${JSON.stringify(file)}: ${problem}`);
  }
}

/** Rejects with an `UnusableFileError`. */
export async function readBounded(option: string, file: string, bytesMax: number): Promise<Buffer> {
  try {
    const handle = await open(file, "r");
    try {
      // One byte more than is allowed shows that there is more; the size that the system tells is not to be relied on.
      const buffer = Buffer.alloc(bytesMax + 1);
      let length = 0;
      for (;;) {
        const { bytesRead } = await handle.read(buffer, length, buffer.length - length, null);
        if (bytesRead === 0) break;
        length += bytesRead;
        if (length > bytesMax) throw new UnusableFileError(option, file, `it has more than ${bytesMax} bytes`);
      }
      return buffer.subarray(0, length);
    } finally {
      await handle.close();
    }
  } catch (error) {
    if (error instanceof UnusableFileError) throw error;
    const { code, message } = error as NodeJS.ErrnoException;
    throw new UnusableFileError(option, file, `it cannot be read (${code ?? message})`);
  }
}

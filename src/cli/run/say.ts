import { writeSync } from "node:fs";
import { plain } from "../output.js";

/**
 * One line on standard error. Not through `process.stderr`: on a pipe that would make the descriptor non-blocking, and
 * the command, which shares it, is not prepared for that.
 */
export function say(text: string): void {
  try {
    writeSync(2, `leasehold run: ${plain(text)}\n`);
  } catch {
    // nobody listens
  }
}

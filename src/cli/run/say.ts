import { writeSync } from "node:fs";
import { plain } from "../output.js";

/** Says something to whoever started the command. */
export type Say = (text: string) => void;

/**
 * One line on standard error. Not through `process.stderr`: on a pipe that would make the descriptor non-blocking, and
 * the command, which shares it, is not prepared for that.
 */
export function sayAs(command: "run" | "elect"): Say {
  return (text) => {
    try {
      writeSync(2, `leasehold ${command}: ${plain(text)}\n`);
    } catch {
      // nobody listens
    }
  };
}

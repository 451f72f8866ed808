/** Reading histories and running all checkers on them. */
import { parseEvent } from "./event.js";
import { checkFencedMutex } from "./fenced-mutex.js";
import type { Findings } from "./findings.js";
import { History, UnreadableHistory } from "./history.js";
import { checkHolding } from "./holding.js";
import { checkLeaders } from "./leaders.js";
import { linesOf } from "./lines.js";
import { checkTimestamps } from "./timestamps.js";
import { checkWrites } from "./writes.js";

export interface Source {
  /** For people. */
  readonly name: string;
  readonly chunks: AsyncIterable<Uint8Array>;
}

/** Reads histories that belong together. Throws `UnreadableHistory`. */
export async function readHistory(sources: readonly Source[], skewNs = 0): Promise<History> {
  const history = new History(skewNs);
  for (const source of sources) await read(history, source);
  history.finish();
  return history;
}

async function read(history: History, { name, chunks }: Source): Promise<void> {
  let number = 0;
  try {
    for await (const lines of linesOf(chunks)) {
      for (const { text, complete } of lines) {
        number++;
        if (text.trim() === "") continue;
        const event = parseEvent(text);
        // Whoever wrote it was killed in the middle of the line.
        if (typeof event === "string" && !complete) history.torn++;
        else {
          const wrong = typeof event === "string" ? event : history.add(event, name, number);
          if (wrong !== undefined) throw new UnreadableHistory(`${name}:${number} ${wrong}`);
        }
      }
    }
  } catch (error) {
    if (error instanceof UnreadableHistory) throw error;
    if (error instanceof RangeError) throw new UnreadableHistory(`${name}: a line after ${number} ${error.message}`);
    throw new UnreadableHistory(`cannot read ${name}: ${error instanceof Error ? error.message : String(error)}`);
  }
}

export function checkHistory(history: History): Findings[] {
  const checkers = [checkHolding, checkFencedMutex, checkTimestamps, checkWrites, checkLeaders];
  return checkers.map((check) => check(history));
}

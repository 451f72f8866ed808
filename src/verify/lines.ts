/** Lines of a stream of bytes, with a bound on their length. */
import { StringDecoder } from "node:string_decoder";

export interface Line {
  readonly text: string;
  /** False for the last line if no newline follows it. */
  readonly complete: boolean;
}

const LINE_LENGTH_MAX = 1_048_576;

/** Batches of lines, in order. Throws `RangeError` at a line of more than 2^20 characters. */
export async function* linesOf(chunks: AsyncIterable<Uint8Array>): AsyncGenerator<Line[], void> {
  const decoder = new StringDecoder("utf8");
  let rest = "";
  for await (const chunk of chunks) {
    const texts = (rest + decoder.write(Buffer.from(chunk.buffer, chunk.byteOffset, chunk.byteLength))).split("\n");
    rest = texts.pop() ?? "";
    yield texts.map((text) => ({ text: bounded(text), complete: true }));
    bounded(rest);
  }
  rest += decoder.end();
  if (rest !== "") yield [{ text: rest, complete: false }];
}

function bounded(text: string): string {
  if (text.length > LINE_LENGTH_MAX) throw new RangeError(`is longer than ${LINE_LENGTH_MAX} characters`);
  return text;
}

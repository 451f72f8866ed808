/** Questions to whoever sits at the terminal. */
import { createInterface } from "node:readline/promises";

export const canAsk = (): boolean => process.stdin.isTTY === true && process.stderr.isTTY === true;

/** The answer, without the spaces around it; null when there is none: ^D or ^C at the question. */
export async function ask(question: string): Promise<string | null> {
  const questions = createInterface({ input: process.stdin, output: process.stderr });
  const answer = await new Promise<string | null>((resolve) => {
    const none = () => {
      process.stderr.write("\n");
      resolve(null);
    };
    questions.once("close", none);
    const answered = (text: string) => {
      questions.off("close", none);
      resolve(text);
    };
    questions.question(question).then(answered, () => {});
  });
  questions.close();
  return answer === null ? null : answer.trim();
}

export const isYes = (answer: string | null): boolean => /^y(es)?$/i.test(answer ?? "");

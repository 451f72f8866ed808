/** Questions to whoever sits at the terminal. */
import { createInterface } from "node:readline/promises";

export const canAsk = (): boolean => process.stdin.isTTY === true && process.stderr.isTTY === true;

/** The answer, without the spaces around it. ^D or ^C at the question is an empty one. */
export async function ask(question: string): Promise<string> {
  const questions = createInterface({ input: process.stdin, output: process.stderr });
  const answer = await new Promise<string>((resolve) => {
    const none = () => {
      process.stderr.write("\n");
      resolve("");
    };
    questions.once("close", none);
    const answered = (text: string) => {
      questions.off("close", none);
      resolve(text);
    };
    questions.question(question).then(answered, () => {});
  });
  questions.close();
  return answer.trim();
}

export const isYes = (answer: string): boolean => /^y(es)?$/i.test(answer);

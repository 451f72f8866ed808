/** Asks the consumer's process, over HTTP, what became of a message that this one publishes. */
import { request } from "node:http";

/**
 * Resolves when the question is being waited on, to what waits for the answer: rejects with STALE_TOKEN if the consumer has
 * dropped the message as stale.
 */
export function ask(url, { name, token }) {
  const query = new URLSearchParams({ key: name, token: String(token) });
  return new Promise((asked, failed) => {
    const question = request(`${url}/?${query}`, (response) => {
      let answer = "";
      response.setEncoding("utf8").on("data", (chunk) => {
        answer += chunk;
      });
      const told = new Promise((resolve, reject) => {
        response.once("end", () => resolve(answer)).once("error", reject);
      });
      told.catch(() => {});
      asked(async () => {
        const is = await told;
        if (is === "stale") throw Object.assign(new Error("the consumer refused it"), { code: "STALE_TOKEN" });
        if (is !== "handled") throw new Error(`the consumer said ${is}`);
      });
    });
    question.once("error", failed).end();
  });
}

/** What is asked of others has a time limit: a store that does not answer must not keep a caller for ever. */
import { FenceError } from "../errors.js";

/**
 * Asks, and reads the answer. Rejects UNREACHABLE when the asking or the reading fails, with that as the cause, and after
 * `limitMs`; LIMIT passes as it is. What was asked for goes on after the limit, and its outcome is dropped: that is harmless
 * for a raise, since raising is all that it may do, and it had been permitted.
 */
export function within<Answer, T>(
  ask: () => Promise<Answer>,
  read: (answer: Answer) => T,
  limitMs: number,
  who: string,
): Promise<T> {
  return new Promise<T>((resolve, reject) => {
    const fail = (cause: unknown) => {
      clearTimeout(timer);
      const known = FenceError.is(cause, "LIMIT") || FenceError.is(cause, "UNREACHABLE");
      reject(known ? cause : new FenceError("UNREACHABLE", `${who} failed`, { cause }));
    };
    const late = () => fail(new FenceError("UNREACHABLE", `${who} did not answer within ${limitMs} ms`));
    const timer = setTimeout(late, limitMs);
    const take = (answer: Answer) => {
      try {
        resolve(read(answer));
        clearTimeout(timer);
      } catch (error) {
        fail(error);
      }
    };
    try {
      ask().then(take, fail);
    } catch (error) {
      fail(error);
    }
  });
}

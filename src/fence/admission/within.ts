/** What is waited for has a limit: a store that does not answer must not keep a caller for ever. */
import { FenceError } from "../errors.js";

/**
 * The promise's outcome, or UNREACHABLE after `limitMs`. What was asked for goes on, and its outcome is dropped: that is
 * harmless for a raise, since raising is all that it may do, and it had been permitted.
 */
export function within<T>(promise: Promise<T>, limitMs: number, what: string): Promise<T> {
  return new Promise<T>((resolve, reject) => {
    const late = () => reject(new FenceError("UNREACHABLE", `${what} did not answer within ${limitMs} ms`));
    const timer = setTimeout(late, limitMs);
    promise.then(resolve, reject).finally(() => clearTimeout(timer));
  });
}

/** Notices when the credentials of something that is open are not accepted any more. */
import type { Authenticated, Authenticator } from "./authenticator.js";

/** Longer than this, a Node timer would fire at once; it is set again then. */
const TIMER_MS_MAX = 2_147_483_647;
/** A credential that has just run out may still be accepted, by its tolerance. */
const AGAIN_MS = 1_000;

/** Calls back, once. Returns how to stop listening. */
export function whenWithdrawn(authenticator: Authenticator, who: Authenticated, listener: () => void): () => void {
  let timer: NodeJS.Timeout | undefined;
  const stop = () => {
    clearTimeout(timer);
    forget();
  };
  const check = () => {
    clearTimeout(timer);
    if (!authenticator.stillValid(who)) {
      stop();
      listener();
    } else if (who.expiresAtMs !== null) {
      const leftMs = who.expiresAtMs - Date.now();
      timer = setTimeout(check, Math.min(Math.max(leftMs, AGAIN_MS), TIMER_MS_MAX)).unref();
    }
  };
  const forget = authenticator.onReload(check);
  check();
  return stop;
}

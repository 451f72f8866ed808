/** Access by credentials alone: whoever is authenticated may take and observe all locks, and nobody may administer. */
import { anybody, type Refusal } from "../core/types.js";
import type { WireFailure } from "../rpc/errors.js";
import type { Access, Identity } from "./access.js";
import type { Authenticated, Authenticator } from "./authenticator.js";
import { withdrawn } from "./failures.js";

const denied: Refusal = { kind: "refused", reason: "DENIED", message: "without a policy nobody is an administrator" };

/** Longer than this, a Node timer would fire at once; it is set again then. */
const TIMER_MS_MAX = 2_147_483_647;

export function credentialAccess(authenticator: Authenticator): Access {
  const identity = (who: Authenticated): Identity => ({
    principal: { name: who.name, quota: anybody.quota },
    permits: ({ verb }) => (verb === "admin" ? denied : null),
    charge: () => null,
    onWithdrawn: (listener) => whenWithdrawn(authenticator, who, () => listener(withdrawn)),
  });
  const answer = (who: Authenticated | WireFailure) => ("reason" in who ? who : identity(who));
  return {
    authentication: true,
    authenticate: (peer) => {
      const who = authenticator.authenticate(peer);
      return who instanceof Promise ? who.then(answer) : answer(who);
    },
  };
}

/** Calls back, once, when the credentials are not accepted any more. Returns how to stop listening. */
function whenWithdrawn(authenticator: Authenticator, who: Authenticated, listener: () => void): () => void {
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
      const ms = Math.min(Math.max(who.expiresAtMs - Date.now(), 10), TIMER_MS_MAX);
      timer = setTimeout(check, ms).unref();
    }
  };
  const forget = authenticator.onReload(check);
  check();
  return stop;
}

/** Ids of requests, by which a line of the log, a line of the audit log and an error of a client are brought together. */
import { randomBytes } from "node:crypto";

/** The caller's own are taken as they are, if they cannot do harm in a log. */
const ACCEPTABLE = /^[\w.:/+=-]{1,64}$/;

const prefix = randomBytes(5).toString("base64url");
let made = 0;

/** The caller's own id, or one of this process. Not a secret: whoever has seen one can guess the next. */
export function requestIdFor(given: string | undefined): string {
  if (given !== undefined && ACCEPTABLE.test(given)) return given;
  made++;
  return `${prefix}-${made.toString(36)}`;
}

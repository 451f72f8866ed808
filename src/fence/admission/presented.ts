/**
 * What a caller presents: a token and the mode of its hold, in two headers. They are the same over HTTP and gRPC.
 *
 * Only one spelling of each token is accepted, so that nothing on the way can read another number out of it: no sign, no
 * leading zero, no list. HTTP joins a header that comes twice to "34, 35", which is neither of the two.
 */
import { invalid, show } from "../errors.js";
import { checkToken } from "../token.js";

/** Digits. */
export const TOKEN_HEADER = "fencing-token";
/** `exclusive` or `shared`; absent: exclusive. */
export const MODE_HEADER = "fencing-mode";

export interface Presented {
  readonly token: number;
  readonly mode: "exclusive" | "shared";
}

const TOKEN = /^(0|[1-9][0-9]{0,15})$/;

/** Undefined when there is no token. Throws INVALID for anything that is not exactly a token and a mode. */
export function readPresented(token: unknown, mode: unknown): Presented | undefined {
  if (mode !== undefined && mode !== "exclusive" && mode !== "shared") {
    throw invalid(`the header ${MODE_HEADER} must be exclusive or shared, not ${show(mode)}`);
  }
  if (token === undefined) return undefined;
  if (typeof token !== "string" || !TOKEN.test(token)) {
    throw invalid(`the header ${TOKEN_HEADER} must be a whole number from 0 to 2^53 - 1, not ${show(token)}`);
  }
  return { token: checkToken(Number(token)), mode: mode ?? "exclusive" };
}

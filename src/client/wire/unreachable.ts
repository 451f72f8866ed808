/**
 * Why no connection could be had, for people. grpc-js puts it into the text of a status, with the system's or OpenSSL's
 * words in the midst of its own.
 */

const SYSTEM_ERROR =
  /\bE(?:CONNREFUSED|CONNRESET|NOTFOUND|AI_AGAIN|TIMEDOUT|HOSTUNREACH|NETUNREACH|ACCES|NOENT|PIPE)\b/;

/** What a mistake with TLS looks like, and what it is. */
const TLS_MISTAKES: readonly (readonly [RegExp, string])[] = [
  [/wrong version number|packet length too long|http request/i, "it does not speak TLS"],
  [/certificate required|alert number 116|handshake failure/i, "it wants a client certificate"],
  [/alert (?:number 4[2-8]|unknown ca|bad certificate|certificate \w+)/i, "it does not accept the client certificate"],
  [
    /unable to verify|self.signed certificate|unable to get (?:local )?issuer/i,
    "its certificate is of no authority that is trusted here",
  ],
  [/certificate has expired/i, "its certificate has expired"],
  [/does not match certificate's altnames|altnames/i, "its certificate is for another name"],
  [/Failed to connect/, "the connection was closed at once; it may want TLS, or another client certificate"],
];

export interface Unreachable {
  /** "ECONNREFUSED", "it does not speak TLS" */
  readonly why: string;
  /** Whether somebody is there, but of no use. */
  readonly answers: boolean;
}

export function whyUnreachable(details: string): Unreachable {
  const system = SYSTEM_ERROR.exec(details)?.[0];
  if (system !== undefined) return { why: system, answers: false };
  const mistake = TLS_MISTAKES.find(([pattern]) => pattern.test(details));
  if (mistake !== undefined) return { why: mistake[1], answers: true };
  const why = details.replace(/^No connection established\. Last error: /, "").replace(/\.? Resolution note: $/, "");
  return { why: why.trim() || "no answer", answers: false };
}

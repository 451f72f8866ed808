/** The exit codes of `leasehold`. */
export const exitCode = {
  ok: 0,
  declined: 1,
  usage: 64,
  unreachable: 69,
  internal: 70,
  busy: 75,
  denied: 77,
  config: 78,
  lost: 79,
} as const;

/** A failure that a person can do something about: one line and an exit code. */
export class CliError extends Error {
  override readonly name = "CliError";
  readonly exitCode: number;
  /** The server's reason, if it was the server that refused: "STALE_TOKEN". */
  readonly reason: string;

  constructor(message: string, code: number, reason = "") {
    super(message);
    this.exitCode = code;
    this.reason = reason;
  }
}

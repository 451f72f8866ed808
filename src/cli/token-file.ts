/**
 * Adds a line to a file that a server may read at any moment, and that others may be adding to.
 *
 *     FILE.new is made, and must not have been there    whoever else is adding has to wait
 *     FILE is read and checked
 *     FILE.new gets what was there and the new line     synced, with the owner and the permissions of FILE
 *     FILE.new becomes FILE                             the server sees the old one or the new one, never half of it
 */
import {
  chownSync,
  closeSync,
  fchmodSync,
  fsyncSync,
  openSync,
  readFileSync,
  realpathSync,
  renameSync,
  statSync,
  unlinkSync,
  writeFileSync,
} from "node:fs";
import { CliError, exitCode } from "./exit.js";
import { plain } from "./output.js";

const codeOf = (error: unknown): string => (error as NodeJS.ErrnoException).code ?? String(error);

const failed = (what: string, file: string, error: unknown) =>
  new CliError(`leasehold token: cannot ${what} ${plain(file)} (${codeOf(error)})`, exitCode.usage);

/** Throws a `CliError`. */
export function readText(file: string): string {
  try {
    return readFileSync(file, "utf8");
  } catch (error) {
    throw failed("read", file, error);
  }
}

/** `check` throws for a content to which nothing may be added. Throws a `CliError`, and the file is as it was. */
export function appendLine(file: string, line: string, check: (file: string, text: string) => unknown): void {
  const target = existing(file);
  const next = `${target ?? file}.new`;
  let descriptor: number;
  try {
    descriptor = openSync(next, "wx", 0o600);
  } catch (error) {
    if (codeOf(error) !== "EEXIST") throw failed("write", next, error);
    const text = `somebody else is adding a token, or has been killed at it: try again, or remove ${plain(next)}`;
    throw new CliError(`leasehold token: ${text}`, exitCode.busy);
  }
  try {
    const before = target === undefined ? "" : readText(target);
    const text = `${before}${before === "" || before.endsWith("\n") ? "" : "\n"}${line}\n`;
    check(file, before);
    check(file, text);
    if (target !== undefined) permitAs(target, next, descriptor);
    writeFileSync(descriptor, text);
    fsyncSync(descriptor);
    renameSync(next, target ?? file);
  } catch (error) {
    unlinkSync(next);
    throw error instanceof CliError ? error : failed("write", next, error);
  } finally {
    closeSync(descriptor);
  }
}

/** Where the file really is: what a symbolic link points to is replaced, not the link. Undefined: there is none. */
function existing(file: string): string | undefined {
  try {
    return realpathSync(file);
  } catch (error) {
    if (codeOf(error) === "ENOENT") return undefined;
    throw failed("read", file, error);
  }
}

/** The server, which may be another user, must be able to read the new one as it was the old one. */
function permitAs(target: string, next: string, descriptor: number): void {
  const { mode, uid, gid } = statSync(target);
  fchmodSync(descriptor, mode & 0o777);
  const own = statSync(next);
  if (own.uid !== uid || own.gid !== gid) chownSync(next, uid, gid);
}

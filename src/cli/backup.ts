/**
 * `leasehold backup FILE`: everything that is durable on a running server, in a file.
 *
 * It is written beside its name first, made durable, read again and verified; only then it gets its name. Whatever
 * interrupts this leaves no file that could be taken for a backup.
 */
import { type FileHandle, open, rename, rm } from "node:fs/promises";
import { dirname } from "node:path";
import { v1 } from "@leasehold/client/wire";
import type { Command } from "commander";
import { type ReadBackup, readBackup, readBackupFile } from "../server/backup/restore.js";
import { syncDirectory } from "../server/journal/head.js";
import { backupForJson, backupRows, reading } from "./backup-view.js";
import { type Caller, CliError, type ConnectionOptions, connectionOptions, exitCode, withServer } from "./common.js";
import { json, list, print, size } from "./output.js";

const method = {
  path: "/leasehold.v1.AdminService/Backup",
  request: v1.BackupRequest,
  response: v1.BackupResponse,
} as const;

interface BackupOptions extends ConnectionOptions {
  readonly verify?: true;
}

const PROGRESS_EVERY_MS = 200;
/** Lease ids are in it: whoever can read it can act like any holder while those leases live. */
const MODE = 0o600;

const HELP = `
The file holds the ids of leases and sessions, which are secrets while those live: it is readable by its owner only;
keep it so. An existing file is replaced, once the new one is verified.

Exit codes: 0 made, or sound; 64 usage; 65 the file is damaged; 69 unreachable; 70 the file cannot be written;
75 another backup is being made; 77 denied.`;

export function registerBackup(program: Command): void {
  const command = program
    .command("backup")
    .summary("save what a running server knows in a file")
    .description("Save what a running server knows, as it is at one moment, in a file for leasehold restore.")
    .argument("<file>", "where to; - for standard output")
    .option("--verify", "do not make one: check this file")
    .addHelpText("after", HELP);
  connectionOptions(command).action(async (file: string, options: BackupOptions) => {
    const found = await (options.verify ? verify(file) : make(file, options));
    const text = options.json ? json(backupForJson(found)) : list(backupRows(found));
    if (file === "-" && !options.verify) process.stderr.write(text);
    else print(text);
  });
}

const verify = (file: string): Promise<ReadBackup> =>
  file === "-" ? reading("standard input", readBackup(process.stdin)) : reading(file, readBackupFile(file));

function make(file: string, options: BackupOptions): Promise<ReadBackup> {
  return withServer(options, (server) => (file === "-" ? toStandardOutput(server) : toFile(server, file)));
}

async function toStandardOutput(server: Caller): Promise<ReadBackup> {
  if (process.stdout.isTTY) {
    throw new CliError("leasehold backup: a backup holds secrets, and is not for a terminal", exitCode.usage);
  }
  const write = async (bytes: Buffer) => {
    if (process.stdout.write(bytes)) return;
    await new Promise<void>((resolve) => process.stdout.once("drain", () => resolve()));
  };
  return await reading("what the server sent", readBackup(fetched(server, write)));
}

async function toFile(server: Caller, file: string): Promise<ReadBackup> {
  const partial = `${file}.partial`;
  try {
    await rm(partial, { force: true }); // of a backup that was interrupted, with whatever mode
    const handle = await open(partial, "wx", MODE);
    try {
      await fill(handle, server);
    } finally {
      await handle.close();
    }
    const found = await reading(partial, readBackupFile(partial));
    await rename(partial, file);
    await syncDirectory(dirname(file));
    return found;
  } catch (error) {
    await rm(partial, { force: true }).catch(() => undefined); // the first error is the one to tell
    if (error instanceof Error && "syscall" in error) {
      throw new CliError(`leasehold: cannot write the backup: ${error.message}`, exitCode.internal);
    }
    throw error;
  }
}

async function fill(handle: FileHandle, server: Caller): Promise<void> {
  const progress = new Progress();
  for await (const bytes of fetched(server, async (chunk) => void (await handle.writeFile(chunk)))) {
    progress.add(bytes.length);
  }
  progress.end();
  await handle.sync();
}

/** The bytes of the backup, each piece after it has been written. */
async function* fetched(server: Caller, write: (bytes: Buffer) => Promise<void>): AsyncGenerator<Buffer> {
  for await (const { data } of server.stream(method, {})) {
    const bytes = Buffer.from(data ?? new Uint8Array());
    await write(bytes);
    yield bytes;
  }
}

/** One line on a terminal. */
class Progress {
  readonly #shown = process.stderr.isTTY === true;
  #bytes = 0;
  #toldMs = 0;

  add(bytes: number): void {
    this.#bytes += bytes;
    const nowMs = performance.now();
    if (!this.#shown || nowMs - this.#toldMs < PROGRESS_EVERY_MS) return;
    this.#toldMs = nowMs;
    process.stderr.write(`\r${size(this.#bytes)} `);
  }

  end(): void {
    if (this.#shown) process.stderr.write(`\r${" ".repeat(20)}\r`);
  }
}

/**
 * The log: readable on a terminal, one JSON object a line otherwise.
 *
 * A reader of the log that is slow or stopped (a pager, a stuck collector) must not stop the server: a lock server that
 * waits for its log loses leases, and one that cannot exit keeps its store locked. Into a pipe or socket we therefore
 * write without blocking and drop lines when a mebibyte waits. Files and terminals are written at once; whoever pauses
 * the terminal pauses the server.
 */
import { fstatSync } from "node:fs";
import { Socket } from "node:net";
import pino, { type Logger } from "pino";
import pretty from "pino-pretty";

export type { Logger } from "pino";

const WAITING_BYTES_MAX = 1_048_576;

/** From the most to the least that is logged. */
export const logLevels = ["trace", "debug", "info", "warn", "error", "fatal", "silent"] as const;
export type LogLevel = (typeof logLevels)[number];

export interface LogOptions {
  /** "trace" … "fatal", or "silent". */
  readonly level: string;
  /** A file descriptor; default: standard output. */
  readonly fd?: number;
  /** Readable instead of JSON; default: when standard output is a terminal. */
  readonly readable?: boolean;
}

export function createLogger(options: LogOptions): Logger {
  const fd = options.fd ?? 1;
  const onTerminal = fd === 1 && process.stdout.isTTY === true;
  const settings = { level: options.level, base: null };
  if (options.readable ?? onTerminal) {
    const stream = pretty({ destination: fd, sync: true, translateTime: "SYS:HH:MM:ss.l", colorize: onTerminal });
    return pino(settings, stream);
  }
  const formatters = { level: (level: string) => ({ level }) };
  return pino({ ...settings, formatters, timestamp: pino.stdTimeFunctions.isoTime }, lineSink(fd, WAITING_BYTES_MAX));
}

/** Takes lines of text. */
export interface Line {
  /** Returns false for a line that was dropped. */
  write(line: string): boolean;
}

/** Lines into a file descriptor; into a pipe or a socket without waiting for whoever reads it. */
export function lineSink(fd: number, waitingBytesMax: number): Line {
  const stat = fstatSync(fd);
  if (!stat.isFIFO() && !stat.isSocket()) {
    const file = pino.destination({ dest: fd, sync: true });
    return {
      write(line) {
        file.write(line);
        return true;
      },
    };
  }
  const socket = new Socket({ fd, readable: false, writable: true });
  socket.unref();
  socket.on("error", () => undefined); // nobody reads any more: there is nowhere to say so
  return {
    write(line) {
      if (!socket.writable || socket.writableLength >= waitingBytesMax) return false;
      socket.write(line);
      return true;
    },
  };
}

/**
 * The pipe between supervisor and guardian: one JSON object a line. That it breaks is its most important message: the
 * operating system sends it, whatever became of the process at the other end.
 *
 * Loads nothing but Node's own modules: the guardian has to start fast.
 */
import type { Socket } from "node:net";
import type { Belief, Plan } from "./belief.js";

export type ToGuardian =
  /** Start the command. The first message, once. */
  | { is: "start"; command: Command; plan: Plan; belief: Belief }
  /** The lock was renewed. At most one is on its way at any time. */
  | { is: "belief"; belief: Belief }
  /** Pass a signal on. */
  | { is: "signal"; signal: NodeJS.Signals }
  /** The lock is lost: end the command now. */
  | { is: "end" };

export type FromGuardian =
  | { is: "started"; pid: number }
  /** `code` is the system's, such as "ENOENT", or "LATE": too little of the belief was left to start anything. */
  | { is: "not_started"; code: string }
  /** The belief last sent is known. */
  | { is: "confirmed" }
  /** SIGTERM was sent: asked by the supervisor, or because the belief neared its end. */
  | { is: "ending"; cause: "asked" | "deadline" }
  /** The command ended by itself. */
  | { is: "exited"; code: number | null; signal: NodeJS.Signals | null }
  /** Nothing of the command is left, or so many processes that cannot be killed. */
  | { is: "ended"; survivors: number };

/** What is run. */
export interface Command {
  readonly file: string;
  readonly args: readonly string[];
  readonly env: Readonly<Record<string, string>>;
  /** Whether the command gets a process group (and session) of its own. If not, it stays in the terminal's. */
  readonly ownGroup: boolean;
  /** Stands in the environment of the command and of what it starts, under `MARKER_VARIABLE`. */
  readonly marker: string;
}

/** Arguments and environment of a process are bounded by the system; this lies above what Linux takes by default. */
const LINE_CHARACTERS_MAX = 16 * 1024 * 1024;

export class Channel<Out, In> {
  readonly #socket: Socket;
  #line = "";

  /** `onClose` is called once, after the last message: the other process is gone, or does not speak this language. */
  constructor(socket: Socket, onMessage: (message: In) => void, onClose: () => void) {
    this.#socket = socket;
    socket.setEncoding("utf8");
    socket.on("data", (chunk: string) => {
      this.#line += chunk;
      if (!chunk.includes("\n")) {
        if (this.#line.length > LINE_CHARACTERS_MAX) socket.destroy();
        return;
      }
      const lines = this.#line.split("\n");
      this.#line = lines.pop() ?? "";
      for (const line of lines) onMessage(JSON.parse(line) as In);
    });
    socket.on("error", () => {}); // "close" follows
    socket.on("close", onClose);
  }

  /** Calls `sent` when the operating system has the message, or never. */
  send(message: Out, sent?: () => void): void {
    if (this.#socket.writable) this.#socket.write(`${JSON.stringify(message)}\n`, () => sent?.());
  }

  /** Whether the pipe is closed at both ends, or broken. */
  get closed(): boolean {
    return this.#socket.destroyed;
  }

  /** Sends what was written, and nothing more. The pipe is closed when the other process has closed its end, too. */
  end(): void {
    this.#socket.end();
  }
}

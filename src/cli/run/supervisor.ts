/**
 * The supervisor's side of `leasehold run`: it holds the lock, and tells the guardian, which owns the command (see
 * guardian.ts), until when the lock is believed to be held.
 *
 * The command lives as long as BOTH processes vouch for it. The guardian ends it when the beliefs stop coming. The
 * supervisor replaces a guardian that is gone, or that has let the last belief it confirmed come so near its end that
 * it ought to have acted, or that does not act when told to: it kills such a guardian and ends the command itself. A
 * command without a guardian does not go on, however well the lock is held.
 */
import { type ChildProcess, spawn } from "node:child_process";
import type { Socket } from "node:net";
import { fileURLToPath } from "node:url";
import { type Belief, elapsedMs, type Plan, remainingMs, type Stamp, stamp } from "./belief.js";
import { Channel, type Command, type FromGuardian, type ToGuardian } from "./channel.js";
import { Ending } from "./ending.js";
import { MARKER_VARIABLE, ProcessTree } from "./tree.js";

/** What the supervisor asks of a lock; the client library's `Lock` is one. */
export interface LockLike {
  readonly name: string;
  readonly state:
    | { readonly is: "held" | "jeopardy"; readonly remainingMs: number }
    | { readonly is: "lost"; readonly reason: string }
    | { readonly is: "released" };
  on(event: "lost", f: () => void): Disposable;
}

export type RunResult =
  | { readonly is: "exited"; readonly code: number }
  | { readonly is: "signalled"; readonly signal: NodeJS.Signals }
  /** `code` is the system's, such as "ENOENT". */
  | { readonly is: "not_started"; readonly code: string }
  /** The command was ended, but for so many processes that could not be killed. */
  | { readonly is: "ended"; readonly cause: EndCause; readonly survivors: number };

/** The lock is lost; it could not be renewed in time; the guardian is gone or does not act. */
export type EndCause = "lost" | "deadline" | "no_guardian";

/** The guardian, as compiled. */
const GUARDIAN = fileURLToPath(new URL("./guardian.js", import.meta.url));
const LOOK_EVERY_MS = 100;
/** How long the guardian may take to say that it does what it was told. */
const OBEDIENCE_MS = 1_000;
const UNKNOWN_PID_LOOK_MS = 500;
/** By how much two computations of the same deadline may differ. */
const SAME_DEADLINE_MS = 1;

export class Supervisor {
  readonly #lock: LockLike;
  readonly #command: Command;
  readonly #plan: Plan;
  readonly #guardian: ChildProcess;
  readonly #lostListener: Disposable;
  readonly #channel: Channel<ToGuardian, FromGuardian>;
  readonly #onResult: (result: RunResult) => void;
  /** The belief last sent, whether the guardian has said that it knows it, and the last one of which it has. */
  #sent: Belief;
  #confirmed: Belief;
  #awaitsConfirmation = true;
  #pid: number | undefined;
  #toldToEndAt: Stamp | undefined;
  #cause: EndCause | undefined;
  #actsSince: Stamp | undefined;
  #takenOver = false;
  #over = false;
  #signal: NodeJS.Signals | undefined;

  /** Starts guardian and command. `onResult` is called once, later. */
  constructor(lock: LockLike, command: Command, plan: Plan, onResult: (result: RunResult) => void) {
    this.#lock = lock;
    this.#command = command;
    this.#plan = plan;
    this.#onResult = onResult;
    const belief = this.#readBelief();
    this.#sent = belief;
    this.#confirmed = belief;
    this.#guardian = spawn(process.execPath, [GUARDIAN, lock.name], {
      env: guardianEnvironment(),
      stdio: ["inherit", "inherit", "inherit", "pipe"],
      detached: command.ownGroup,
    });
    this.#guardian.on("error", () => {}); // the pipe closes, too
    this.#channel = new Channel(
      this.#guardian.stdio[3] as Socket,
      (message) => this.#on(message),
      () => this.#takeOver(),
    );
    this.#channel.send({ is: "start", command, plan, belief });
    this.#lostListener = lock.on("lost", () => this.#lookSoon());
    this.#watch();
  }

  /**
   * Passes a signal on to the command; `sent` is called when it is on its way. What a terminal sends has reached a
   * command in the terminal's group already.
   */
  forward(signal: NodeJS.Signals, sent?: () => void): void {
    this.#signal = signal;
    if (!this.#command.ownGroup && (signal === "SIGINT" || signal === "SIGQUIT")) return;
    // What has arrived is read first: a write to a guardian that has left would lose its last message.
    setImmediate(() => this.#channel.send({ is: "signal", signal }, sent));
  }

  #on(message: FromGuardian): void {
    if (this.#over || this.#takenOver) return;
    switch (message.is) {
      case "started":
        this.#pid = message.pid;
        this.#onConfirmed();
        return;
      case "not_started":
        if (message.code === "LATE") this.#finish({ is: "ended", cause: this.#cause ?? "deadline", survivors: 0 });
        else this.#finish({ is: "not_started", code: message.code });
        return;
      case "confirmed":
        this.#onConfirmed();
        return;
      case "ending":
        this.#actsSince ??= stamp();
        this.#cause ??= "deadline";
        return;
      case "exited":
        // Its own end, also when the lock was lost before this was read: the guardian had not had to end it. But not
        // when the supervisor knew first.
        if (this.#cause) this.#finish({ is: "ended", cause: this.#cause, survivors: 0 });
        else if (message.signal) this.#finish({ is: "signalled", signal: message.signal });
        else this.#finish({ is: "exited", code: message.code ?? 0 });
        return;
      case "ended":
        this.#finish({ is: "ended", cause: this.#cause ?? "deadline", survivors: message.survivors });
    }
  }

  #onConfirmed(): void {
    this.#confirmed = this.#sent;
    this.#awaitsConfirmation = false;
    this.#lookSoon();
  }

  #watch(): void {
    if (this.#over || this.#takenOver) return;
    this.#lookSoon();
    setTimeout(() => this.#watch(), LOOK_EVERY_MS);
  }

  /** What has arrived is read before the clock is judged by: a supervisor that was held up may have news waiting. */
  #lookSoon(): void {
    setImmediate(() => this.#look());
  }

  #look(): void {
    if (this.#over || this.#takenOver) return;
    if (this.#lock.state.is === "lost") this.#tellToEnd();
    const belief = this.#readBelief();
    const now = belief.stamp;
    const movedMs = Math.abs(remainingMs(belief, now) - remainingMs(this.#sent, now));
    if (movedMs > SAME_DEADLINE_MS && !this.#awaitsConfirmation && !this.#cause) {
      this.#sent = belief;
      this.#awaitsConfirmation = true;
      this.#channel.send({ is: "belief", belief });
    }
    if (!this.#guardianFails(now)) return;
    const { graceMs, marginMs } = this.#plan;
    this.#cause ??= remainingMs(belief, now) <= graceMs + marginMs ? "deadline" : "no_guardian";
    this.#guardian.kill("SIGKILL"); // the pipe closes
  }

  /** The stamp is taken first: what remains then counts from a moment that is too early, if from a wrong one. */
  #readBelief(): Belief {
    const now = stamp();
    const { state } = this.#lock;
    return { stamp: now, remainingMs: "remainingMs" in state ? state.remainingMs : 0 };
  }

  #tellToEnd(): void {
    if (this.#toldToEndAt) return;
    this.#toldToEndAt = stamp();
    this.#cause ??= "lost";
    this.#channel.send({ is: "end" });
  }

  /** It has to act half a margin before this process would have to; that half is then what this process has. */
  #guardianFails(now: Stamp): boolean {
    const { graceMs, marginMs } = this.#plan;
    const beliefMs = remainingMs(this.#confirmed, now) - marginMs / 2;
    if (this.#actsSince) {
      return Math.min(beliefMs, graceMs + OBEDIENCE_MS - elapsedMs(this.#actsSince, now)) <= 0;
    }
    const toldMs = this.#toldToEndAt ? OBEDIENCE_MS - elapsedMs(this.#toldToEndAt, now) : Number.POSITIVE_INFINITY;
    return Math.min(beliefMs - graceMs, toldMs) <= 0;
  }

  /** The pipe is closed: nobody else watches over the command now. */
  #takeOver(): void {
    if (this.#over || this.#takenOver) return;
    this.#takenOver = true;
    this.#guardian.kill("SIGKILL");
    this.#cause ??= "no_guardian";
    const cause = this.#cause;
    const { ownGroup, marker } = this.#command;
    const plan = { graceMs: this.#actsSince ? 0 : this.#plan.graceMs, marginMs: this.#plan.marginMs / 2 };
    // A guardian that died while it started the command had no time to tell the id; the marker still finds it.
    const lookForMs = this.#pid === undefined ? UNKNOWN_PID_LOOK_MS : 0;
    new Ending(
      new ProcessTree(this.#pid, ownGroup, marker),
      plan,
      () => this.#confirmed,
      (survivors) => {
        // ^C on a terminal reaches a guardian that is too young to ignore it.
        const interrupted = this.#pid === undefined && survivors === 0 ? this.#signal : undefined;
        this.#finish(interrupted ? { is: "signalled", signal: interrupted } : { is: "ended", cause, survivors });
      },
      lookForMs,
    );
  }

  #finish(result: RunResult): void {
    if (this.#over) return;
    this.#over = true;
    this.#lostListener[Symbol.dispose]();
    this.#onResult(result);
  }
}

/** The guardian has no use for what the environment asks of Node, and must not be taken for a part of the command. */
function guardianEnvironment(): NodeJS.ProcessEnv {
  const env = { ...process.env };
  for (const name of [MARKER_VARIABLE, "NODE_OPTIONS", "NODE_V8_COVERAGE", "NODE_CHANNEL_FD"]) delete env[name];
  return env;
}

/**
 * The guardian of `leasehold run`: a small process that ends the command in time, whatever becomes of the supervisor.
 *
 * Who does what. The supervisor holds the lock and talks to the server; it may stall, be stopped or be killed. The
 * guardian starts the command, knows until when the lock is believed to be held, and kills. It learns two things
 * through the pipe on descriptor 3: each renewal's new belief, and, by the pipe's breaking, that the supervisor is gone.
 *
 *     belief down to grace + margin, or pipe broken, or told so      SIGTERM to the command's group
 *     the grace later, at the latest when the margin is left         SIGKILL to the group
 *
 * A belief carries the moment at which it was true, on a clock that both processes read. A message that lay in the pipe
 * and a guardian that was itself stopped for a while therefore never believe longer than the supervisor does.
 *
 * Why the guardian, not the supervisor, is the command's parent:
 * - There is no moment at which the command runs and nobody but a process that may be killed knows its id. The
 *   supervisor may die before, while or after the command is started: the guardian has the id from the call that
 *   created it, and the broken pipe tells it to use it.
 * - The id cannot be reused under its hands: until the parent waits for it, a dead child keeps its id. Were the
 *   supervisor the parent, its death would hand the command to init, which waits at once, and the guardian would kill by
 *   an id that may have become somebody else's.
 * The price is that the exit status passes through here on its way to the supervisor, and that the guardian's own death
 * makes the command an orphan: then the supervisor ends it, by its group and by its marker (see tree.ts).
 *
 * Groups. Normally the guardian is in a session of its own, out of reach of signals to the supervisor's group, and the
 * command in another (`detached` means setsid). With `ownGroup` false, on a terminal, both stay in the terminal's
 * foreground group so that the command can read from it: then the guardian ignores what the terminal sends, and kills
 * by process id and marker.
 *
 * What this cannot do: end the command when guardian and supervisor are killed, or stopped, at the same time, or when
 * the command runs as another user. The fencing token is there for those cases.
 *
 * Imports nothing but Node's own modules and files that do the same: it has to start fast.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { Socket } from "node:net";
import { type Belief, type Plan, remainingMs, stamp } from "./belief.js";
import { Channel, type Command, type FromGuardian, type ToGuardian } from "./channel.js";
import { Ending } from "./ending.js";
import { ProcessTree } from "./tree.js";

/** How often it looks at the clock: the machine may sleep, and timers do not count that. */
const LOOK_EVERY_MS = 100;
/** How long it waits for the supervisor to read its last message. */
const LEAVE_MS_MAX = 2_000;
const IGNORED: readonly NodeJS.Signals[] = [
  ...(["SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2"] as const),
  ...(["SIGTSTP", "SIGTTIN", "SIGTTOU", "SIGPIPE"] as const),
];

class Guardian {
  readonly #channel: Channel<FromGuardian, ToGuardian>;
  #running: { readonly tree: ProcessTree; readonly plan: Plan; belief: Belief } | undefined;
  #ending: Ending | undefined;
  #over = false;

  constructor(socket: Socket) {
    this.#channel = new Channel(
      socket,
      (message) => this.#on(message),
      () => this.#supervisorGone(),
    );
  }

  #on(message: ToGuardian): void {
    if (this.#over) return;
    switch (message.is) {
      case "start":
        this.#start(message.command, message.plan, message.belief);
        return;
      case "belief":
        if (this.#running) this.#running.belief = message.belief;
        this.#channel.send({ is: "confirmed" });
        return;
      case "signal":
        this.#running?.tree.signal(message.signal);
        return;
      case "end":
        this.#end("asked");
    }
  }

  #start(command: Command, plan: Plan, belief: Belief): void {
    if (remainingMs(belief, stamp()) <= plan.graceMs + plan.marginMs) {
      this.#notStarted("LATE");
      return;
    }
    let child: ChildProcess;
    try {
      const { file, args, env, ownGroup } = command;
      child = spawn(file, args, { env, stdio: "inherit", detached: ownGroup });
    } catch (error) {
      this.#notStarted((error as NodeJS.ErrnoException).code ?? "EINVAL");
      return;
    }
    if (child.pid === undefined) {
      child.once("error", (error: NodeJS.ErrnoException) => this.#notStarted(error.code ?? "EINVAL"));
      return;
    }
    const tree = new ProcessTree(child.pid, command.ownGroup, command.marker);
    this.#running = { tree, plan, belief };
    child.once("exit", (code, signal) => this.#exited(tree, code, signal));
    this.#channel.send({ is: "started", pid: child.pid });
    this.#watch();
  }

  #notStarted(code: string): void {
    this.#channel.send({ is: "not_started", code });
    this.#leave();
  }

  /** What has arrived is read before the clock is judged by: a guardian that was held up may have news waiting. */
  #watch(): void {
    const running = this.#running;
    if (!running || this.#ending || this.#over) return;
    const { graceMs, marginMs } = running.plan;
    const leftMs = remainingMs(running.belief, stamp()) - graceMs - marginMs;
    if (leftMs <= 0) this.#end("deadline");
    else setTimeout(() => setImmediate(() => this.#watch()), Math.min(leftMs, LOOK_EVERY_MS));
  }

  #exited(tree: ProcessTree, code: number | null, signal: NodeJS.Signals | null): void {
    tree.leaderExited();
    if (this.#ending) return; // what it started may still live
    this.#channel.send({ is: "exited", code, signal });
    this.#leave();
  }

  #supervisorGone(): void {
    if (this.#over) process.exit(0);
    if (this.#running) this.#end("asked");
    else this.#leave();
  }

  #end(cause: "asked" | "deadline"): void {
    const running = this.#running;
    if (!running || this.#ending || this.#over) return;
    this.#ending = new Ending(
      running.tree,
      running.plan,
      () => running.belief,
      (survivors) => {
        this.#channel.send({ is: "ended", survivors });
        this.#leave();
      },
    );
    this.#channel.send({ is: "ending", cause });
  }

  #leave(): void {
    if (this.#over) return;
    this.#over = true;
    if (this.#channel.closed) process.exit(0);
    // The supervisor closes its end when it has read the last message. One that is just writing would lose that message
    // if the pipe broke under it.
    this.#channel.end();
    setTimeout(() => process.exit(0), LEAVE_MS_MAX);
  }
}

for (const signal of IGNORED) process.on(signal, () => {});
new Guardian(new Socket({ fd: 3 }));

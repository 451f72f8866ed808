/** The signals that `leasehold run` takes: while it waits they end the wait, later they are for the command. */

const ROUTED = ["SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2"] as const;
/** Those that ask for an end; others may mean anything to the command. */
const ENDING: ReadonlySet<NodeJS.Signals> = new Set(["SIGINT", "SIGTERM", "SIGQUIT"]);

type Suspend = (signal: NodeJS.Signals, sent: () => void) => void;

export class Signals {
  #receiver: (signal: NodeJS.Signals) => void = () => {};
  #first: NodeJS.Signals | undefined;
  #ending: NodeJS.Signals | undefined;
  #suspend: Suspend | null = null;

  constructor() {
    for (const signal of ROUTED) {
      process.on(signal, () => {
        this.#first ??= signal;
        if (ENDING.has(signal)) this.#ending ??= signal;
        this.#receiver(signal);
      });
    }
  }

  /** The first that came. */
  get first(): NodeJS.Signals | undefined {
    return this.#first;
  }

  /** The first that asked for an end. */
  get ending(): NodeJS.Signals | undefined {
    return this.#ending;
  }

  /** Who gets them from now on. */
  sendTo(receiver: (signal: NodeJS.Signals) => void): void {
    this.#receiver = receiver;
  }

  /**
   * A job that is suspended away from a terminal: the command first, then this process, so that whoever suspended it sees
   * it stop. Nothing renews the lock meanwhile: if that lasts too long, the guardian ends the command.
   */
  suspendWith(forward: Suspend): void {
    const installed = this.#suspend !== null;
    this.#suspend = forward;
    if (installed) return;
    // SIGSTOP, since the kernel does not let SIGTSTP stop a group that no shell looks after.
    process.on("SIGTSTP", () => this.#suspend?.("SIGSTOP", () => process.kill(process.pid, "SIGSTOP")));
    process.on("SIGCONT", () => this.#suspend?.("SIGCONT", () => {}));
  }
}

/** The signals that `leasehold run` takes: while it waits they end the wait, later they are for the command. */

const ROUTED = ["SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2"] as const;

export class Signals {
  #receiver: (signal: NodeJS.Signals) => void = () => {};
  #first: NodeJS.Signals | undefined;

  constructor() {
    for (const signal of ROUTED) {
      process.on(signal, () => {
        this.#first ??= signal;
        this.#receiver(signal);
      });
    }
  }

  /** The first that came. */
  get first(): NodeJS.Signals | undefined {
    return this.#first;
  }

  /** Who gets them from now on. */
  sendTo(receiver: (signal: NodeJS.Signals) => void): void {
    this.#receiver = receiver;
  }

  /**
   * A job that is suspended away from a terminal: the command first, then this process, so that whoever suspended it sees
   * it stop. Nothing renews the lock meanwhile: if that lasts too long, the guardian ends the command.
   */
  suspendWith(forward: (signal: NodeJS.Signals, sent: () => void) => void): void {
    // SIGSTOP, since the kernel does not let SIGTSTP stop a group that no shell looks after.
    process.on("SIGTSTP", () => forward("SIGSTOP", () => process.kill(process.pid, "SIGSTOP")));
    process.on("SIGCONT", () => forward("SIGCONT", () => {}));
  }
}

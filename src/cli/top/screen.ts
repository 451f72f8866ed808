/**
 * A terminal that is drawn over as a whole, on its alternate screen, and given back as it was.
 *
 * It is given back when the process ends, in whatever way it can still do something about: normally, by an error, by a
 * signal. Lines are cut by the terminal itself (autowrap is off), so that no width of a character has to be known here.
 */
const ENTER = "\x1b[?1049h\x1b[?25l\x1b[?7l";
const LEAVE = "\x1b[?7h\x1b[?25h\x1b[?1049l";
const HOME = "\x1b[H";
const CLEAR_TO_LINE_END = "\x1b[K";
const CLEAR_BELOW = "\x1b[J";
const BOLD = "\x1b[1m";
const PLAIN = "\x1b[0m";

export interface ScreenEvents {
  /** Another size, or back from being suspended: draw again. */
  redraw(): void;
  /** q, ^C or ^D was typed, or a signal asks for the end. */
  quit(): void;
}

export class Screen {
  readonly #events: ScreenEvents;
  readonly #input = process.stdin.isTTY ? process.stdin : undefined;
  #active = false;
  readonly #leave = () => this.#giveBack();
  readonly #quit = () => this.#events.quit();
  readonly #redraw = () => this.#events.redraw();
  readonly #resume = () => {
    this.#take();
    this.#events.redraw();
  };
  readonly #key = (key: Buffer) => this.#onKey(key.toString("latin1"));

  constructor(events: ScreenEvents) {
    this.#events = events;
    process.on("exit", this.#leave);
    for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.on(signal, this.#quit);
    process.on("SIGCONT", this.#resume);
    process.stdout.on("resize", this.#redraw);
    this.#input?.on("data", this.#key);
    this.#take();
  }

  get lines(): number {
    return process.stdout.rows || 24;
  }

  /** Draws these lines from the top. Those entirely in capitals are headings. */
  draw(lines: readonly string[]): void {
    if (!this.#active) return;
    const shown = lines.slice(0, this.lines).map((line, i) => {
      const heading = i === 0 || (/^[A-Z]/.test(line) && !/[a-z]/.test(line));
      return `${heading ? `${BOLD}${line}${PLAIN}` : line}${CLEAR_TO_LINE_END}`;
    });
    process.stdout.write(`${HOME}${shown.join("\r\n")}${CLEAR_BELOW}`);
  }

  close(): void {
    this.#giveBack();
    process.off("exit", this.#leave);
    for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.off(signal, this.#quit);
    process.off("SIGCONT", this.#resume);
    process.stdout.off("resize", this.#redraw);
    this.#input?.off("data", this.#key).pause();
  }

  #onKey(key: string): void {
    if (key === "q" || key === "Q" || key === "\x03" || key === "\x04") this.#events.quit();
    if (key !== "\x1a") return;
    this.#giveBack(); // ^Z
    process.kill(process.pid, "SIGTSTP");
  }

  #take(): void {
    if (this.#active) return;
    this.#active = true;
    this.#input?.setRawMode(true);
    process.stdout.write(ENTER);
  }

  #giveBack(): void {
    if (!this.#active) return;
    this.#active = false;
    process.stdout.write(LEAVE);
    try {
      this.#input?.setRawMode(false);
    } catch {
      // the terminal is gone
    }
  }
}

/**
 * The pace of refusals.
 *
 * A refusal costs a server almost as much as an answer: who is refused at once and asks again at once takes the processor
 * from all others, whatever its quota. So what one principal asks for beyond its rate is refused in turn, as fast as about
 * a twentieth of a processor can: a call waits for its refusal, and a session's stream is not read for a while. The client
 * then has no more to ask with than HTTP/2 lets it have open.
 */

/**
 * What one refusal takes of the time of a principal's refusals: at least 20 times what it takes of a processor. Of calls
 * there are fewer still: what a call that waits has in memory is copied by the garbage collector, while others wait.
 */
const CALL_MS = 5;
const FRAME_MS = 0.5;
const COMMAND_MS = 0.06;

/** So many calls at once are no mistake; whoever waits longer has given up. */
const HOLD_MS_MAX = 10_000;
/** Refusals of one principal that wait: what they take must leave room for the calls of others. Others wait for nothing. */
const HELD_MAX = 10_000;

export class RefusalPace {
  /** Until when the refusals that were promised take. */
  #takenUntilMs = 0;
  /** When each call that waits will have been refused; ascending from `#first` on. */
  #due: number[] = [];
  #first = 0;

  /** After how many ms a call is to be refused that costs as much as so many. */
  call(calls: number, nowMs: number): number {
    while (this.#first < this.#due.length && (this.#due[this.#first] as number) <= nowMs) this.#first++;
    if (this.#first > HELD_MAX) {
      this.#due = this.#due.slice(this.#first);
      this.#first = 0;
    }
    if (this.#due.length - this.#first >= HELD_MAX) return 0;
    const holdMs = this.#take(calls * CALL_MS, nowMs);
    this.#due.push(nowMs + holdMs);
    return holdMs;
  }

  /** For how many ms the stream whose frame had these commands is not to be read. */
  frame(commands: number, nowMs: number): number {
    return this.#take(FRAME_MS + commands * COMMAND_MS, nowMs);
  }

  #take(ms: number, nowMs: number): number {
    const until = Math.max(nowMs, this.#takenUntilMs) + ms;
    this.#takenUntilMs = Math.min(until, nowMs + HOLD_MS_MAX);
    return this.#takenUntilMs - nowMs;
  }
}

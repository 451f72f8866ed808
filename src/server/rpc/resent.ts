/** Commands that a client sends again on a new stream, since it does not know what came of them on the one before. */

interface Numbered {
  readonly seq: number;
}

export class Resent {
  #upTo = 0;
  #left = 0;

  /** What the client has said that it will send again. */
  announce(outstanding: readonly number[]): void {
    this.#left = outstanding.length;
    for (const seq of outstanding) this.#upTo = Math.max(this.#upTo, seq);
  }

  /** Whether one of these may have been sent before. */
  someOf(requests: readonly Numbered[]): boolean {
    return requests.some(({ seq }) => seq <= this.#upTo);
  }

  /** How many of these, the first ones, are sent again, as far as that was announced; each is counted once. */
  take(requests: readonly Numbered[]): number {
    let count = 0;
    while (count < this.#left && count < requests.length && (requests[count] as Numbered).seq <= this.#upTo) count++;
    this.#left -= count;
    return count;
  }
}

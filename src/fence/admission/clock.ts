/** Lamport timestamps beside tokens: how a clock reads and writes the headers of a message. */

/** A `Headers`, a `Map`, or what looks like one. */
export interface HeaderCarrier {
  get(name: string): string | null | undefined;
  set(name: string, value: string): unknown;
}

/** `client.clock` of `@leasehold/client` is one. */
export interface MessageClock {
  /** Ticks, and puts the timestamp into the headers of a message that is to be sent. */
  inject(headers: HeaderCarrier): unknown;
  /** Takes note of the timestamp of a message that was received. Throws for a header that is no timestamp. */
  extract(headers: HeaderCarrier): unknown;
}

export const isClock = (clock: unknown): clock is MessageClock =>
  typeof clock === "object" &&
  clock !== null &&
  typeof (clock as Partial<MessageClock>).inject === "function" &&
  typeof (clock as Partial<MessageClock>).extract === "function";

/**
 * Takes note of an answer's timestamp. One that is damaged is passed over: what was asked for has been done, and an error
 * would say that it had not.
 */
export function extractFromAnswer(clock: MessageClock, headers: HeaderCarrier): void {
  try {
    clock.extract(headers);
  } catch {
    // see above
  }
}

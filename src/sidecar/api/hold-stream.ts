/**
 * A hold that is tied to a connection: one JSON object a line, from the grant on.
 *
 *     {"event":"granted","holdId":"…","token":33,"remainingMs":14850,"untilMonotonicMs":86214950,…}
 *     {"event":"alive","remainingMs":13120,"untilMonotonicMs":86219800}
 *     {"event":"lost","reason":"forced"}
 *
 * The status line is sent with the grant, and not earlier: 200 means that the lock is held, 423 that it was not to be had
 * in time, and a program that looks at the status alone is right. Who waits and wants to know for whom asks for
 * GET /v1/locks/{name}.
 *
 * Closing the connection releases the lock, and so does the end of the process, however it ends. In the other direction
 * `alive` comes a few times per TTL: a sidecar that is stopped or gone is noticed by the lines that do not come. A line may
 * be old when it is read, so it says until when the lock is held by the clock that all processes of the machine share.
 *
 * After `lost` the stream ends. When an administrator has taken the lock away, or its maximum is over, it stays open until
 * the application closes it, at most for a TTL: that is the sign that it has stopped, and the next holder waits for it.
 */
import type { ServerResponse } from "node:http";
import { type EndReason, type Hold, isConfirmed } from "../holds.js";
import type { StreamEvent } from "./schemas.js";

const ALIVE_MS_MAX = 5_000;
const ALIVE_MS_MIN = 100;
/** What waits for a reader that does not read; `alive` lines beyond it are left out. */
const WAITING_BYTES_MAX = 65_536;

export class HoldStream {
  readonly #hold: Hold;
  readonly #response: ServerResponse;
  readonly #alive: NodeJS.Timeout;
  #linger: NodeJS.Timeout | undefined;

  /** Sends the head and the first line. */
  constructor(hold: Hold, response: ServerResponse) {
    this.#hold = hold;
    this.#response = response;
    response.writeHead(200, {
      "content-type": "application/x-ndjson",
      "cache-control": "no-store",
      "x-content-type-options": "nosniff",
      connection: "close",
    });
    response.socket?.setNoDelay(true);
    response.once("close", () => this.#closed());
    const everyMs = Math.min(ALIVE_MS_MAX, Math.max(ALIVE_MS_MIN, Math.floor(hold.ttlMs / 5)));
    this.#alive = setInterval(() => this.#sayAlive(), everyMs);
    this.#write({ event: "granted", ...hold.view() });
    hold.lock.on("jeopardy", () => this.#write({ event: "jeopardy", ...hold.belief() }));
    hold.lock.on("recovered", () => this.#write({ event: "recovered", ...hold.belief() }));
    hold.lock.on("yield", () => this.#write({ event: "yield", ...hold.belief(), reason: "max_hold" }));
    hold.listen({
      released: () => this.#end({ event: "released" }),
      lost: (reason) => this.#lost(reason),
      closing: () => this.#write({ event: "yield", ...hold.belief(), reason: "closing" }),
    });
  }

  #sayAlive(): void {
    const { state } = this.#hold.lock; // a loss that nobody has told of is noticed here, and heard by the listener
    if (state.is !== "held" && state.is !== "jeopardy") return;
    if (this.#response.writableLength < WAITING_BYTES_MAX) this.#write({ event: "alive", ...this.#hold.belief() });
  }

  #lost(reason: EndReason): void {
    clearInterval(this.#alive);
    if (isConfirmed(reason)) {
      this.#write({ event: "lost", reason });
      this.#linger = setTimeout(() => this.#response.end(), this.#hold.ttlMs);
    } else {
      this.#end({ event: "lost", reason });
    }
  }

  #end(event: StreamEvent): void {
    clearInterval(this.#alive);
    this.#write(event);
    this.#response.end();
  }

  #write(event: StreamEvent): void {
    if (!this.#response.writableEnded && !this.#response.destroyed) this.#response.write(`${JSON.stringify(event)}\n`);
  }

  #closed(): void {
    clearInterval(this.#alive);
    clearTimeout(this.#linger);
    void this.#hold.release();
  }
}

/** Calls without an answer and open streams: whom to tell when the store fails or the server stops. */
import type { Command, Reply } from "../core/types.js";
import type { LiveRoute, RouteFailure } from "./routes.js";

export class RouteRegistry {
  readonly #routes = new Set<LiveRoute>();
  /** The stream of each attached session. */
  readonly #streams = new Map<string, { readonly epoch: number; readonly route: LiveRoute }>();

  /** Sessions whose stream is open. */
  get streams(): number {
    return this.#streams.size;
  }

  /** A command was taken. */
  onCommand(command: Command): void {
    if (command.kind === "call" || command.kind === "attach") this.#routes.add(command.route as LiveRoute);
    else if (command.kind === "callGone") this.#routes.delete(command.route as LiveRoute);
    else if (command.kind === "detach") {
      const stream = this.#streams.get(command.sessionId);
      if (stream?.epoch !== command.epoch) return;
      this.#streams.delete(command.sessionId);
      this.#routes.delete(stream.route);
    }
  }

  /** A reply is about to be delivered. */
  onReply(reply: Reply, route: LiveRoute): void {
    if (reply.kind === "replaced") this.#routes.delete(route);
    if (reply.kind !== "outcome" || reply.seq !== 0) return;
    const { outcome } = reply;
    if (outcome.kind === "welcome") this.#streams.set(outcome.sessionId, { epoch: outcome.epoch, route });
    else this.#routes.delete(route); // a call that is answered, or a stream that is not welcome
  }

  /** Tells all of them that it is over. */
  fail(failure: RouteFailure): void {
    const routes = [...this.#routes];
    this.#routes.clear();
    this.#streams.clear();
    for (const route of routes) route.fail(failure);
  }
}

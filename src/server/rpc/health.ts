/** `grpc.health.v1`: one status for the server as a whole and the same for each of its services. */
import type { Server, ServerWritableStream } from "@grpc/grpc-js";
import { HealthImplementation } from "grpc-health-check";
import type { AuxiliaryStreams } from "./auxiliary.js";

type WatchCall = ServerWritableStream<unknown, unknown>;
type Handlers = Parameters<Server["addService"]>[1];

export class Health {
  private readonly implementation: HealthImplementation;

  constructor(
    private readonly services: readonly string[],
    private readonly streams: AuxiliaryStreams,
  ) {
    this.implementation = new HealthImplementation();
    this.setServing(false);
  }

  setServing(serving: boolean): void {
    for (const name of ["", ...this.services]) {
      this.implementation.setStatus(name, serving ? "SERVING" : "NOT_SERVING");
    }
  }

  /** Watches count as auxiliary streams: bounded, and ended when the server drains. */
  addTo(server: Server): void {
    this.implementation.addToServer({
      addService: (definition, handlers) => {
        const watch = handlers.watch as (call: WatchCall) => void;
        const bounded = (call: WatchCall) => {
          if (this.streams.admit(call)) watch(call);
        };
        server.addService(definition, { ...handlers, watch: bounded } as Handlers);
      },
    });
  }
}

/** The sidecar's metrics: never a name, an owner or a token in a label. */
import { Counter, Gauge, Registry } from "prom-client";

export interface MetricsSource {
  holds(): number;
  waits(): number;
  connected(): boolean;
  /** Whether the election is won and the lock of the proxy is held; null: there is none. */
  leads(): boolean | null;
  proxyHeld(): boolean | null;
  proxyInFlight(): number;
}

export class SidecarMetrics {
  readonly #registry = new Registry();
  readonly #requests: Counter<"route" | "status">;
  readonly #losses: Counter<"reason">;
  readonly #proxied: Counter<"outcome">;

  constructor(source: MetricsSource) {
    const registers = [this.#registry];
    this.#requests = new Counter({
      name: "leasehold_sidecar_requests_total",
      help: "Requests of applications that were answered.",
      labelNames: ["route", "status"],
      registers,
    });
    this.#losses = new Counter({
      name: "leasehold_sidecar_losses_total",
      help: "Locks that were lost while an application held them.",
      labelNames: ["reason"],
      registers,
    });
    this.#proxied = new Counter({
      name: "leasehold_sidecar_proxied_total",
      help: "Requests to the fencing proxy: forwarded, refused since the lock was not held, aborted by a loss, failed.",
      labelNames: ["outcome"],
      registers,
    });
    const gauge = (name: string, help: string, read: () => number | boolean | null) => {
      const made: Gauge = new Gauge({
        name: `leasehold_sidecar_${name}`,
        help,
        registers,
        collect: () => made.set(Number(read() ?? 0)),
      });
    };
    gauge("holds", "Locks that are held for applications.", () => source.holds());
    gauge("waits", "Requests that wait for a lock.", () => source.waits());
    gauge("connected", "1 while the connection to the server stands; 0 also when none is needed.", () =>
      source.connected(),
    );
    gauge("leader", "1 while this sidecar leads (--elect).", () => source.leads());
    gauge("proxy_held", "1 while the lock of the fencing proxy is held.", () => source.proxyHeld());
    gauge("proxy_in_flight", "Requests that the fencing proxy is forwarding.", () => source.proxyInFlight());
  }

  get contentType(): string {
    return this.#registry.contentType;
  }

  render(): Promise<string> {
    return this.#registry.metrics();
  }

  /** `route`: one of the catalog's paths, or "none". */
  answered(route: string, status: number): void {
    this.#requests.inc({ route, status: String(status) });
  }

  lost(reason: string): void {
    this.#losses.inc({ reason });
  }

  proxied(outcome: "forwarded" | "refused" | "aborted" | "failed"): void {
    this.#proxied.inc({ outcome });
  }
}

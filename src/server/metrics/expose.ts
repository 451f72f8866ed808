/** From the arrays of the hot path to prom-client: everything is read at the scrape. */
import client from "prom-client";
import type { Accumulator } from "./accumulators.js";

export type Labels = Readonly<Record<string, string>>;

export interface Family<Cell> {
  readonly name: string;
  readonly help: string;
  readonly labels?: readonly string[];
  /** All series of this family, at this moment. */
  readonly series: () => Iterable<readonly [Labels, Cell]>;
}

export const NO_LABELS: Labels = {};

export class Exposition {
  readonly registry = new client.Registry();

  counter(family: Family<number>): void {
    new client.Counter(filled<client.Counter>(family, this.registry, (metric, ...sample) => metric.inc(...sample)));
  }

  gauge(family: Family<number>): void {
    new client.Gauge(filled<client.Gauge>(family, this.registry, (metric, ...sample) => metric.set(...sample)));
  }

  histogram(family: Family<Accumulator>): void {
    new FilledHistogram(family, this.registry);
  }
}

/** The configuration of a metric that is filled at the scrape. */
function filled<M extends client.Counter | client.Gauge>(
  { name, help, labels: labelNames = [], series }: Family<number>,
  registry: client.Registry,
  add: (metric: M, labels: Labels, value: number) => void,
) {
  return {
    name,
    help,
    labelNames: [...labelNames],
    registers: [registry],
    collect(this: M) {
      this.reset();
      if (labelNames.length === 0) this.remove(); // `reset` would leave a zero even if there is nothing to tell
      for (const [labels, value] of series()) add(this, labels, value);
    },
  };
}

interface Value {
  readonly metricName: string;
  readonly labels: Labels;
  readonly sharedLabels: Labels;
  readonly value: number;
}

/** A histogram whose numbers are kept elsewhere. */
class FilledHistogram extends client.Histogram {
  readonly #family: Family<Accumulator>;

  constructor(family: Family<Accumulator>, registry: client.Registry) {
    super({ name: family.name, help: family.help, labelNames: [...(family.labels ?? [])], registers: [registry] });
    this.#family = family;
  }

  /** What prom-client writes out, and what its `get` builds upon; not among its declared types. */
  async getForPromString() {
    const { name, help, series } = this.#family;
    const values: Value[] = [];
    for (const [labels, accumulator] of series()) values.push(...seriesValues(name, labels, accumulator));
    return { name, help, type: "histogram", aggregator: "sum", values };
  }
}

function* seriesValues(name: string, sharedLabels: Labels, accumulator: Accumulator): Generator<Value> {
  const { bounds, counts, sum } = accumulator;
  const bucket = `${name}_bucket`;
  let below = 0;
  for (let i = 0; i < bounds.length; i++) {
    below += counts[i]!;
    yield { metricName: bucket, labels: { le: String(bounds[i]) }, sharedLabels, value: below };
  }
  const count = below + counts[bounds.length]!;
  yield { metricName: bucket, labels: { le: "+Inf" }, sharedLabels, value: count };
  yield { metricName: `${name}_sum`, labels: {}, sharedLabels, value: sum };
  yield { metricName: `${name}_count`, labels: {}, sharedLabels, value: count };
}

// Writes the recording rules and alerts of deploy/prometheus/rules as a resource of the Prometheus operator, so that they
// are written once: `node scripts/prometheus-rule.mjs && npm run format`. A test compares.
import { readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { parse, stringify } from "yaml";

const deploy = new URL("../deploy/", import.meta.url);
const SOURCES = ["prometheus/rules/recording.yml", "prometheus/rules/alerts.yml"];
export const target = fileURLToPath(new URL("kubernetes/components/monitoring/prometheus-rule.yaml", deploy));

/** The text of the file. */
export function prometheusRule() {
  const groups = SOURCES.flatMap((path) => parse(readFileSync(new URL(path, deploy), "utf8")).groups);
  const resource = {
    apiVersion: "monitoring.coreos.com/v1",
    kind: "PrometheusRule",
    metadata: { name: "leasehold", labels: { "app.kubernetes.io/name": "leasehold" } },
    spec: { groups },
  };
  const sources = SOURCES.map((path) => `deploy/${path}`).join(" and ");
  return `# Written by scripts/prometheus-rule.mjs from ${sources}: change those.\n${stringify(resource, { lineWidth: 120 })}`;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) writeFileSync(target, prometheusRule());

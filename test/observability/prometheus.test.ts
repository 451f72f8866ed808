/** A real Prometheus with the shipped rules and the shipped dashboard, beside a real server that has real trouble. */

import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type Client, connect } from "../../src/client/index.js";
import { defaultConfig } from "../../src/server/config/schema.js";
import { LevelJournal } from "../../src/server/journal/level.js";
import { type RunningServer, startServer } from "../../src/server/server.js";
import { until } from "../services/processes.mjs";
import { startPrometheus } from "../services/prometheus.mjs";
import { describeWithServices } from "../services/vitest.js";
import { quickRules, SlowJournal, shippedFile } from "./support.js";

type Prometheus = Awaited<ReturnType<typeof startPrometheus>>;

/** Generous: the machine may be busy. */
const ALERT_MS_MAX = 60_000;

let folder: string;
let journal: SlowJournal;
let server: RunningServer;
let client: Client;
let prometheus: Prometheus;
let busy: Promise<void>;
const end = new AbortController();

/** Takes and gives back locks until the end. */
async function work(worker: number): Promise<void> {
  for (let round = 0; !end.signal.aborted; round++) {
    const mode = round % 2 === 0 ? "exclusive" : "shared";
    await client.withLock(`work/${worker}`, { mode }, () => new Promise((resolve) => setTimeout(resolve, 5)));
  }
}

const alert = async (name: string) => {
  const alerts = await prometheus.alerts();
  return alerts.find(({ labels, state }) => labels.alertname === name && state === "firing");
};

async function fires(name: string) {
  await until(async () => (await alert(name)) !== undefined, { what: `${name} fires`, limitMs: ALERT_MS_MAX });
  return await alert(name);
}

const resolves = (name: string) =>
  until(async () => (await alert(name)) === undefined, { what: `${name} is over`, limitMs: ALERT_MS_MAX });

describeWithServices("Prometheus", ["prometheus"], () => {
  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), "leasehold-prometheus-"));
    const store = join(folder, "store");
    const config = defaultConfig({ listen: "127.0.0.1:0", opsListen: "127.0.0.1:0", store: `level:${store}` });
    server = await startServer(config, {
      openJournal: (observer) => {
        journal = new SlowJournal(new LevelJournal(store, { observer }));
        return journal;
      },
    });
    client = await connect(server.address);
    client.on("warning", () => undefined);
    busy = Promise.all([1, 2, 3, 4].map(work)).then(() => undefined);
    const target = { targets: [server.opsAddress], labels: { cluster: "main" } };
    prometheus = await startPrometheus({
      scrape: [{ job_name: "leasehold", static_configs: [target] }],
      rules: quickRules(),
      evaluationMs: 500,
    });
    const acquires = "leasehold:acquire_duration_seconds:p99_5m > 0";
    await until(async () => (await prometheus.query(acquires)).length > 0, { what: "figures of the last seconds" });
  });

  afterAll(async () => {
    end.abort();
    if (journal) journal.delayMs = 0;
    await busy;
    await client?.close({ timeout: "1s" });
    await prometheus?.stop();
    await server?.stop();
    if (folder) rmSync(folder, { recursive: true, force: true });
  });

  test("scrapes the server, and all rules can be evaluated", async () => {
    expect(await prometheus.targets()).toMatchObject([{ health: "up", lastError: "" }]);
    const rules = await prometheus.rules();
    expect(rules).toHaveLength(17);
    for (const rule of rules) expect(rule, JSON.stringify(rule)).toMatchObject({ health: "ok" });
    expect(await prometheus.query("leasehold_leader")).toMatchObject([{ metric: { cluster: "main" } }]);
  });

  test("a journal that has become slow raises an alert, until it is quick again", async () => {
    expect(await alert("LeaseholdJournalSlow")).toBeUndefined();
    journal.delayMs = 80;
    const { labels, annotations } = (await fires("LeaseholdJournalSlow")) ?? {};
    expect(labels).toMatchObject({ severity: "warning", instance: server.opsAddress, cluster: "main" });
    expect(annotations?.summary).toBe(`The store of Leasehold ${server.opsAddress} is slow.`);
    expect(annotations?.description).toMatch(/takes longer than (8|9|1\d|2\d)\S*ms/);
    journal.delayMs = 0;
    await resolves("LeaseholdJournalSlow");
  }, 180_000);

  test("a lock that is held for too long raises an alert, until it is released", async () => {
    await resolves("LeaseholdLockHeldTooLong");
    const lock = await client.acquire("long");
    const { annotations } = (await fires("LeaseholdLockHeldTooLong")) ?? {};
    expect(annotations?.summary).toMatch(/has been held for \d\S*s\.$/);
    expect(annotations?.runbook_url).toBe("docs/runbooks/lock-held-too-long.md");
    await lock.release();
    await resolves("LeaseholdLockHeldTooLong");
  }, 180_000);

  describe("answers what the dashboard asks", () => {
    interface Panel {
      title: string;
      type: string;
      targets?: { expr: string }[];
    }
    const dashboard = JSON.parse(shippedFile("grafana/leasehold.json")) as {
      panels: Panel[];
      templating: { list: { name: string; definition?: string }[] };
      annotations: { list: { expr: string }[] };
    };
    const queries = dashboard.panels.flatMap(({ title, targets = [] }) =>
      targets.map(({ expr }) => ({ title, expr: expr.replaceAll("$__rate_interval", "6s") })),
    );
    const filled = (expr: string) => expr.replaceAll("$cluster", ".*").replaceAll("$instance", ".*");
    /** There is nothing to show while all is well, or without encryption. */
    const mayBeEmpty = new Set(["Certificates are good for", "Requests that were refused"]);

    test("its queries are those of all rows", () => {
      const rows = dashboard.panels.filter(({ type }) => type === "row").map(({ title }) => title);
      expect(rows).toEqual(["Is it well", "Locks", "Leases and sessions", "Journal", "Process", "Security"]);
      expect(queries.length).toBeGreaterThan(50);
      for (const title of mayBeEmpty) expect(queries.map((query) => query.title)).toContain(title);
    });

    test.each(queries)("$title: $expr", async ({ title, expr }) => {
      expect(expr).toMatch(/\$cluster/);
      const result = await prometheus.query(filled(expr));
      if (!mayBeEmpty.has(title)) expect(result.length, expr).toBeGreaterThan(0);
      expect(filled(expr)).not.toContain("$");
    });

    test("and the values of its variables", async () => {
      for (const { name, definition } of dashboard.templating.list) {
        if (definition === undefined) continue;
        const [, selector = "", label = ""] = /^label_values\((.*), (\w+)\)$/.exec(definition) ?? [];
        expect(label).toBe(name);
        const values = (await prometheus.query(filled(selector))).map(({ metric }) => metric[label]);
        expect(values).toEqual([name === "cluster" ? "main" : server.opsAddress]);
      }
    });

    test("and its annotations", async () => {
      for (const { expr } of dashboard.annotations.list) await prometheus.query(filled(expr));
    });
  });

  test("a server that is gone raises an alert", async () => {
    end.abort();
    await busy;
    await client.close({ timeout: "1s" });
    await server.stop();
    const { labels } = (await fires("LeaseholdDown")) ?? {};
    expect(labels).toMatchObject({ severity: "critical", instance: server.opsAddress });
  }, 120_000);
});

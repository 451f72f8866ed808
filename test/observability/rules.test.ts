/** What is shipped for Prometheus: every alert has a runbook and tests, the tests pass, and they notice what is broken. */
import { cpSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { parse, stringify } from "yaml";
import { need } from "../services/packages.mjs";
import { run } from "../services/processes.mjs";
import { describeWithServices } from "../services/vitest.js";

const root = fileURLToPath(new URL("../..", import.meta.url));
const shipped = join(root, "deploy/prometheus");

interface Alert {
  alert: string;
  expr: string;
  for?: string;
  labels: { severity: string };
  annotations: { summary: string; description: string; runbook_url: string };
}
interface Rules {
  groups: { name: string; rules: Alert[] }[];
}

const read = (file: string) => parse(readFileSync(join(shipped, file), "utf8"));
const alerts = (read("rules/alerts.yml") as Rules).groups.flatMap(({ rules }) => rules);
/** LeaseholdJournalSlow: journal-slow, as its runbook and its tests are called. */
const fileOf = (alert: string) =>
  alert
    .slice("Leasehold".length)
    .replace(/(?!^)[A-Z]/g, "-$&")
    .toLowerCase();

describe("the alerts", () => {
  test("are those that were promised", () => {
    const names =
      "Down JournalDown JournalSlow LockHeldTooLong QueueStuck ExpiriesHigh LoopStalled NotExactlyOneLeader";
    const more = "LimitNear DiskLow CertExpiring StaleTokens";
    expect(alerts.map(({ alert }) => alert)).toEqual(`${names} ${more}`.split(" ").map((name) => `Leasehold${name}`));
  });

  test.each(alerts)("$alert says what it means, and where to go on", ({ alert, labels, annotations }) => {
    expect(["critical", "warning", "info"]).toContain(labels.severity);
    expect(annotations.summary).toMatch(/\.$/);
    expect(annotations.description.length).toBeGreaterThan(60);
    expect(annotations.runbook_url).toBe(`docs/runbooks/${fileOf(alert)}.md`);
    const runbook = readFileSync(join(root, annotations.runbook_url), "utf8");
    expect(runbook.split("\n")[0]).toBe(`# ${alert}`);
    for (const heading of ["What it means", "What suffers", "What to look at", "What to do", "When it is no problem"]) {
      expect(runbook).toContain(`\n## ${heading}\n`);
    }
    expect(readFileSync(join(root, "docs/metrics.md"), "utf8")).toContain(
      `[\`${alert}\`](runbooks/${fileOf(alert)}.md)`,
    );
  });

  test("are the only ones with tests and runbooks", () => {
    const expected = alerts.map(({ alert }) => fileOf(alert)).sort();
    const names = (folder: string, end: string) =>
      readdirSync(folder)
        .map((file) => file.replace(end, ""))
        .filter((name) => name !== "README.md")
        .sort();
    expect(names(join(shipped, "rules/tests"), ".yml")).toEqual(expected);
    expect(names(join(root, "docs/runbooks"), ".md")).toEqual(expected);
  });

  test("ask for metrics that there are", () => {
    const documented = readFileSync(join(root, "docs/metrics.md"), "utf8");
    const text = readFileSync(join(shipped, "rules/alerts.yml"), "utf8");
    const recording = readFileSync(join(shipped, "rules/recording.yml"), "utf8");
    const used = new Set(`${text}${recording}`.match(/\bleasehold_[a-z_]+\b/g));
    expect(used.size).toBeGreaterThan(10);
    for (const name of used) expect(documented).toContain(`| \`${name.replace(/_bucket$/, "")}\` |`);
    for (const name of text.match(/\bleasehold:[a-z0-9_:]+/g) ?? []) expect(recording).toContain(`record: ${name}\n`);
  });
});

describeWithServices("promtool", ["prometheus"], () => {
  let promtool = "";
  let folder = "";
  beforeAll(async () => {
    promtool = await need("promtool");
    folder = mkdtempSync(join(tmpdir(), "leasehold-rules-"));
  });
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  test("finds nothing wrong with the configuration and the rules", async () => {
    const rules = ["recording", "alerts"].map((name) => join(shipped, `rules/${name}.yml`));
    await run([promtool, "check", "config", join(shipped, "prometheus.yml")]);
    expect(await run([promtool, "check", "rules", "--lint-fatal", ...rules])).not.toContain("FAILED");
  });

  test("finds nothing wrong with the parts that are commented out", async () => {
    const text = readFileSync(join(shipped, "prometheus.yml"), "utf8");
    const [before = "", after = ""] = text.split("    # When the server asks who calls");
    const settings = after.replace(/^.*\n.*\n/, "").replace(/^ {4}# ?(?=(?:\w+:| {2}))/gm, "    ");
    const file = join(folder, "prometheus.yml");
    expect(settings).toContain("\n    scheme: https\n    tls_config:\n      ca_file:");
    writeFileSync(file, before.replace(/rule_files:[\s\S]*?\n\n/, "") + settings);
    const config = parse(readFileSync(file, "utf8")) as { scrape_configs: object[] };
    expect(config.scrape_configs[0]).toMatchObject({ authorization: { type: "Bearer" }, tls_config: {} });
    await run([promtool, "check", "config", "--syntax-only", file]);
  });

  test.each(alerts)("the tests of $alert pass", async ({ alert }) => {
    await run([promtool, "test", "rules", join(shipped, `rules/tests/${fileOf(alert)}.yml`)]);
  });

  const broken: [string, (alert: Alert) => Partial<Alert> | undefined][] = [
    ["never fires", () => ({ expr: "vector(0) > 1" })],
    ["always fires", () => ({ expr: "vector(1)" })],
    ["does not wait", (alert) => (alert.for === undefined ? undefined : { for: "0s" })],
  ];
  test.each(broken)("the tests of each alert notice one that %s", async (what, breakIt) => {
    for (const { alert } of alerts) {
      const rules = read("rules/alerts.yml") as Rules;
      const victim = rules.groups.flatMap((group) => group.rules).find((rule) => rule.alert === alert) as Alert;
      const change = breakIt(victim);
      if (change === undefined) continue;
      Object.assign(victim, change);
      const copy = join(folder, `${fileOf(alert)}-${what.replaceAll(" ", "-")}`);
      cpSync(join(shipped, "rules"), copy, { recursive: true });
      writeFileSync(join(copy, "alerts.yml"), stringify(rules));
      const tests = join(copy, `tests/${fileOf(alert)}.yml`);
      expect(existsSync(tests)).toBe(true);
      await expect(run([promtool, "test", "rules", tests]), `${alert} ${what}`).rejects.toThrow(/FAILED/);
    }
  });
});

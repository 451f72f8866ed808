// What the documents for Kubernetes say: that they fit together, and that they keep to what the server needs.
import { describe, expect, it } from "vitest";
import { parse } from "yaml";
import manifest from "../../package.json" with { type: "json" };
import { parsePolicy } from "../../src/server/security/policy-file.js";
import {
  built,
  type Container,
  environmentOf,
  type Labels,
  labelsOfPod,
  type Manifest,
  type Pod,
  podOf,
  read,
  selects,
} from "./manifests.js";
import { configOf, deployFile, imageEnvironment, present } from "./support.js";

const UNBOUNDED = { leases: 0, locks: 0, waiters: 0, requestsPerSecond: 0, requestsBurst: 0 };

/** What whoever deploys it makes; each is told of where it is needed. */
const SECRETS = ["leasehold-tls", "leasehold-tokens", "leasehold-metrics-token", "leasehold-client"];

const base = ["service-account", "services", "statefulset", "network-policy", "pod-disruption-budget"].flatMap((name) =>
  read(`base/${name}.yaml`),
);
const [example] = read("examples/native-sidecar.yaml") as [Manifest];

const find = <T = Manifest["spec"]>(among: readonly Manifest[], kind: string, name = "leasehold") => {
  const found = among.find((one) => one.kind === kind && one.metadata.name === name);
  if (!found) throw new Error(`no ${kind} ${name}`);
  return { ...found, spec: found.spec as unknown as T };
};

const set = find(base, "StatefulSet");
const pod = podOf(set);
const [server] = pod.containers as [Container];
const labels = labelsOfPod(set);

const restricted = {
  allowPrivilegeEscalation: false,
  readOnlyRootFilesystem: true,
  capabilities: { drop: ["ALL"] },
};

describe.each([
  ["the server", set],
  ["the example of a sidecar", example],
])("%s", (_, workload) => {
  const { containers, initContainers = [], volumes = [], ...rest } = podOf(workload) as Pod;
  const all = [...initContainers, ...containers];

  it("keeps to the restricted pod security standard, on a read-only file system", () => {
    expect(rest.securityContext).toMatchObject({
      runAsNonRoot: true,
      runAsUser: 1000,
      seccompProfile: { type: "RuntimeDefault" },
    });
    for (const { name, securityContext } of all) expect(securityContext, name).toEqual(restricted);
  });

  it("gets no credentials of the cluster, no variables of services, and bounded memory", () => {
    expect(rest).toMatchObject({ automountServiceAccountToken: false, enableServiceLinks: false });
    for (const { name, resources } of all) {
      expect(Object.keys(resources?.requests ?? {}), name).toEqual(["cpu", "memory"]);
      expect(Object.keys(resources?.limits ?? {}), name).toEqual(["memory"]);
    }
  });

  it("mounts volumes that there are, from secrets that the words tell how to make", () => {
    const claims = (workload.spec as { volumeClaimTemplates?: Manifest[] }).volumeClaimTemplates ?? [];
    const known = [...volumes.map(({ name }) => name), ...claims.map(({ metadata }) => metadata.name)];
    const mounts = all.flatMap(({ volumeMounts = [] }) => volumeMounts);
    expect([...new Set(mounts.map(({ name }) => name))].sort()).toEqual([...known].sort());
    for (const { secret } of volumes) {
      if (!secret) continue;
      expect(SECRETS).toContain(secret.secretName);
      expect(secret.defaultMode).toBe(0o440);
    }
  });

  it("probes ports that it has, on pages that are open to all", () => {
    for (const { name, ports = [], startupProbe, livenessProbe, readinessProbe } of all) {
      for (const probe of [startupProbe, livenessProbe, readinessProbe]) {
        if (!probe) continue;
        expect(
          ports.map((port) => port.name),
          name,
        ).toContain(probe.httpGet.port);
        expect(["/healthz", "/readyz"]).toContain(probe.httpGet.path);
      }
      // A restart would not mend a disk, nor the server that a sidecar waits for.
      if (livenessProbe) expect(livenessProbe.httpGet.path).toBe("/healthz");
    }
  });
});

describe("the server", () => {
  const env = { ...imageEnvironment(), ...environmentOf(server) };

  it("is configured with options that exist: encrypted, callers known, what they may in a policy", () => {
    const config = configOf(env);
    expect(config).toMatchObject({ insecure: false, authTokens: "/etc/leasehold/auth/tokens" });
    for (const file of [config.tlsCert, config.tlsKey, config.authTokens, config.policy]) {
      const mount = server.volumeMounts?.find(({ mountPath }) => file.startsWith(`${mountPath}/`));
      expect(mount, file).toMatchObject({ readOnly: true });
    }
    expect(server.volumeMounts).toContainEqual({ name: "data", mountPath: "/var/lib/leasehold" });
    const ports = [config.listen, config.opsListen].map((address) => Number(address.split(":").at(-1)));
    expect(server.ports?.map(({ containerPort }) => containerPort)).toEqual(ports);
  });

  it("has a policy that the server takes: applications by prefix, and people who look after it", () => {
    const policy = parsePolicy(deployFile("kubernetes/base/policy.yaml"), UNBOUNDED);
    if (typeof policy === "string") throw new Error(policy);
    const may = (principal: string, verb: "acquire" | "observe" | "admin", name: string) =>
      policy.of(principal).permits({ verb, name, prefix: false });
    expect([may("token/orders", "acquire", "orders/1"), may("token/orders", "acquire", "billing/1")]).toEqual([
      true,
      false,
    ]);
    expect([may("token/ops", "admin", "orders/1"), may("token/orders", "admin", "orders/1")]).toEqual([true, false]);
    expect(policy.of("token/orders").allowance).toMatchObject({ locks: 10_000, requestsPerSecond: 2_000 });
  });

  it("is one, has the time to drain, and keeps its data", () => {
    expect(set.spec).toMatchObject({
      replicas: 1,
      persistentVolumeClaimRetentionPolicy: { whenDeleted: "Retain", whenScaled: "Retain" },
    });
    expect(pod.terminationGracePeriodSeconds * 1_000).toBeGreaterThan(configOf(env).drainMsMax + 2_000);
    const { maxUnavailable, minAvailable } = find<Record<string, number>>(base, "PodDisruptionBudget").spec;
    expect({ maxUnavailable, minAvailable }).toEqual({ maxUnavailable: 1, minAvailable: undefined });
  });

  it("runs the version that this is", () => {
    const { images } = parse(deployFile("kubernetes/base/kustomization.yaml")) as { images: { newTag: string }[] };
    expect(images).toMatchObject([{ name: "leasehold", newTag: manifest.version }]);
    expect(example && podOf(example).initContainers?.[0]?.image).toBe(`leasehold:${manifest.version}`);
  });

  it("is selected by all that is about it, by labels and by ports that it has", () => {
    const { serviceName, selector } = set.spec as unknown as { serviceName: string; selector: { matchLabels: Labels } };
    expect(selects(selector.matchLabels, labels)).toBe(true);
    for (const name of ["leasehold", serviceName]) {
      type Ports = { selector: Labels; ports: { name: string; port: number; targetPort: string }[] };
      const { selector, ports } = find<Ports>(base, "Service", name).spec;
      expect(selects(selector, labels)).toBe(true);
      for (const { name, port, targetPort } of ports) {
        expect(server.ports).toContainEqual({ name: targetPort, containerPort: port });
        expect(name).toBe(targetPort);
      }
    }
    expect(find<{ clusterIP: string }>(base, "Service", serviceName).spec.clusterIP).toBe("None");
    const budget = find<{ selector: { matchLabels: Labels } }>(base, "PodDisruptionBudget").spec;
    expect(selects(budget.selector.matchLabels, labels)).toBe(true);
    expect(base.map(({ kind, metadata }) => `${kind}/${metadata.name}`)).toContain(
      `ServiceAccount/${pod.serviceAccountName}`,
    );
  });

  it("is reached by clients and Prometheus, each at its port, and reaches nobody", () => {
    interface Policy {
      readonly podSelector: { matchLabels: Labels };
      readonly policyTypes: string[];
      readonly ingress: { from: { podSelector?: { matchLabels: Labels } }[]; ports: { port: string }[] }[];
      readonly egress: unknown[];
    }
    const { podSelector, policyTypes, ingress, egress } = find<Policy>(base, "NetworkPolicy").spec;
    expect(selects(podSelector.matchLabels, labels)).toBe(true);
    expect({ policyTypes, egress }).toEqual({ policyTypes: ["Ingress", "Egress"], egress: [] });
    const [clients, prometheus] = ingress;
    expect([clients?.ports, prometheus?.ports]).toEqual([[{ port: "client" }], [{ port: "ops" }]]);
    const from = clients?.from[0]?.podSelector?.matchLabels ?? {};
    expect(example && selects(from, labelsOfPod(example))).toBe(true);
    expect(selects(from, { app: "something else" })).toBe(false);
  });
});

it("Prometheus scrapes the one service that has the port, encrypted, with a token, as the job that alerts look for", () => {
  interface Monitor {
    readonly selector: { matchLabels: Labels };
    readonly jobLabel: string;
    readonly endpoints: { port: string; path: string; scheme: string; authorization: unknown; tlsConfig: unknown }[];
  }
  const { selector, jobLabel, endpoints } = find<Monitor>(
    read("components/monitoring/service-monitor.yaml"),
    "ServiceMonitor",
  ).spec;
  const services = base.filter(({ kind }) => kind === "Service");
  const scraped = services.filter(({ metadata, spec }) => {
    const ports = (spec as unknown as { ports: { name: string }[] }).ports.map(({ name }) => name);
    return selects(selector.matchLabels, metadata.labels ?? {}) && ports.includes(endpoints[0]?.port ?? "");
  });
  expect(scraped.map(({ metadata }) => metadata.name)).toEqual(["leasehold-headless"]);
  expect(scraped[0]?.metadata.labels?.[jobLabel]).toBe("leasehold");
  expect(endpoints).toMatchObject([
    {
      path: "/metrics",
      scheme: "https",
      authorization: { type: "Bearer", credentials: { name: SECRETS[2] } },
      tlsConfig: { ca: { secret: { name: SECRETS[0] } }, serverName: "leasehold" },
    },
  ]);
});

it("the words tell how each secret is made", () => {
  const words = [
    "base/kustomization.yaml",
    "components/monitoring/kustomization.yaml",
    "examples/native-sidecar.yaml",
  ].map((path) => deployFile(`kubernetes/${path}`));
  for (const name of SECRETS) expect(words.join()).toMatch(new RegExp(`create secret (tls|generic) ${name} `));
});

describe("the example of a sidecar", () => {
  const [sidecar] = (podOf(example).initContainers ?? []) as [Container];

  it("runs the sidecar for as long as the application, on loopback, with probes beside it", () => {
    expect(sidecar.restartPolicy).toBe("Always");
    expect(sidecar.args?.slice(0, 3)).toEqual(["sidecar", "--listen=127.0.0.1:7422", "--ops-listen=0.0.0.0:7424"]);
    expect(sidecar.ports).toEqual([{ name: "sidecar-ops", containerPort: 7424 }]);
    const [app] = podOf(example).containers as [Container];
    expect(app.args?.join()).toContain("http://127.0.0.1:7422/v1/locks/");
  });

  it("finds the server by the service's port, and shows it what the secret holds", () => {
    const env = environmentOf(sidecar);
    const ports = find<{ ports: { name: string; port: number }[] }>(base, "Service").spec.ports;
    expect(env.LEASEHOLD_ADDR).toBe(`leasehold.leasehold.svc:${ports[0]?.port}`);
    const mount = sidecar.volumeMounts?.[0]?.mountPath;
    expect([env.LEASEHOLD_CA, env.LEASEHOLD_AUTH_TOKEN_FILE]).toEqual([`${mount}/ca.crt`, `${mount}/token`]);
    expect(deployFile("kubernetes/examples/native-sidecar.yaml")).toContain("--from-file=ca.crt --from-file=token");
  });
});

const there = present("kubectl", "help");
it.skipIf(!there)(`the overlay "insecure" is that, and says so${there ? "" : " (kubectl is not installed)"}`, () => {
  const documents = built("overlays/insecure");
  const [container] = podOf(find(documents, "StatefulSet")).containers as [Container];
  expect(environmentOf(container)).toEqual({ LEASEHOLD_INSECURE: "1" });
  expect(configOf({ ...imageEnvironment(), ...environmentOf(container) })).toMatchObject({
    insecure: true,
    tlsCert: "",
  });
  const schemes = [container.startupProbe, container.livenessProbe, container.readinessProbe].map(
    (probe) => probe?.httpGet.scheme,
  );
  expect(schemes).toEqual(["HTTP", "HTTP", "HTTP"]);
  expect(container.volumeMounts).toEqual([{ name: "data", mountPath: "/var/lib/leasehold" }]);
  expect(documents.filter(({ kind }) => kind === "ConfigMap" || kind === "Secret")).toEqual([]);
});

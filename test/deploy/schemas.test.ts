// Every document for Kubernetes against its schema, as it is written and as kustomize puts it together.
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { parse } from "yaml";
import { prometheusRule } from "../../scripts/prometheus-rule.mjs";
import { built, folder, kustomizations, type Manifest, mistakesIn, read } from "./manifests.js";
import { deployFile, present } from "./support.js";

interface Kustomization {
  readonly resources?: readonly string[];
  readonly patches?: readonly { readonly path?: string }[];
  readonly configMapGenerator?: readonly { readonly files: readonly string[] }[];
}

it.each(kustomizations())("$path names every file in its folder, and no other", ({ path, files }) => {
  const {
    resources = [],
    patches = [],
    configMapGenerator = [],
  } = parse(deployFile(`kubernetes/${path}/kustomization.yaml`)) as Kustomization;
  const named = [
    ...resources.filter((resource) => !resource.startsWith("../")),
    ...patches.flatMap(({ path }) => path ?? []),
    ...configMapGenerator.flatMap(({ files }) => files),
  ];
  expect([...named].sort()).toEqual([...files].sort());
});

/** Patches and the policy are no whole documents. */
const written = ["base", "components/monitoring", "examples"]
  .flatMap((path) => readdirSync(join(folder, path)).map((file) => `${path}/${file}`))
  .filter((path) => !/(kustomization|policy)\.yaml$/.test(path) || path.endsWith("network-policy.yaml"));

it.each(written)("%s is what its schema permits", (path) => {
  const documents = read(path);
  expect(documents).not.toEqual([]);
  for (const document of documents) expect(mistakesIn(document), document.metadata.name).toEqual([]);
});

it("finds mistakes: of type, and in names", () => {
  const [pod] = read("base/statefulset.yaml") as [Manifest];
  const broken = (text: string, by: string) => JSON.parse(JSON.stringify(pod).replace(text, by)) as Manifest;
  expect(mistakesIn(broken('"replicas":1', '"replicas":"one"'))).toEqual([expect.stringContaining("integer")]);
  expect(mistakesIn(broken('"runAsNonRoot"', '"runAsNonRot"'))).toEqual([
    expect.stringMatching(/runAsNonRot: unknown/),
  ]);
  expect(mistakesIn(broken('"readOnlyRootFilesystem"', '"readOnlyRoot"'))).toHaveLength(1);
});

it("the operator's rules are those of Prometheus", () => {
  // As values: how lines are broken is up to the formatter.
  expect(parse(deployFile("kubernetes/components/monitoring/prometheus-rule.yaml"))).toEqual(parse(prometheusRule()));
});

const there = present("kubectl", "help");
describe.skipIf(!there)(`put together by kustomize${there ? "" : " (kubectl is not installed: not done)"}`, () => {
  it.each(["base", "overlays/insecure"])("%s is what the schemas permit", (path) => {
    for (const document of built(path)) expect(mistakesIn(document), document.metadata.name).toEqual([]);
  });
});

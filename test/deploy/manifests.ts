/** Kubernetes' documents below deploy/kubernetes: read, put together as kustomize does it, and checked. */
import { execFileSync } from "node:child_process";
import { readdirSync } from "node:fs";
import { join } from "node:path";
import * as monitoring from "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1";
import * as apps from "kubernetes-models/apps/v1";
import * as networking from "kubernetes-models/networking.k8s.io/v1";
import * as policy from "kubernetes-models/policy/v1";
import * as core from "kubernetes-models/v1";
import { parseAllDocuments } from "yaml";
import { deployFile, root } from "./support.js";

export const folder = join(root, "deploy/kubernetes");

/** A document, as far as the tests look into it. */
export interface Manifest {
  readonly apiVersion: string;
  readonly kind: string;
  readonly metadata: { readonly name: string; readonly labels?: Labels };
  readonly spec: Tree;
  readonly data?: Readonly<Record<string, string>>;
}
export type Labels = Readonly<Record<string, string>>;
export type Tree = { readonly [key: string]: never };

export interface Container {
  readonly name: string;
  readonly image: string;
  readonly command?: readonly string[];
  readonly args?: readonly string[];
  readonly env?: readonly { readonly name: string; readonly value?: string }[];
  readonly ports?: readonly { readonly name: string; readonly containerPort: number }[];
  readonly restartPolicy?: string;
  readonly securityContext?: unknown;
  readonly resources?: { readonly requests?: object; readonly limits?: object };
  readonly volumeMounts?: readonly { readonly name: string; readonly mountPath: string; readonly readOnly?: boolean }[];
  readonly startupProbe?: Probe;
  readonly livenessProbe?: Probe;
  readonly readinessProbe?: Probe;
}
export interface Probe {
  readonly httpGet: { readonly path: string; readonly port: string; readonly scheme?: string };
}
export interface Pod {
  readonly containers: readonly Container[];
  readonly initContainers?: readonly Container[];
  readonly volumes?: readonly Volume[];
  readonly securityContext?: unknown;
  readonly terminationGracePeriodSeconds: number;
  readonly enableServiceLinks?: boolean;
  readonly automountServiceAccountToken?: boolean;
  readonly serviceAccountName?: string;
}
interface Volume {
  readonly name: string;
  readonly secret?: { readonly secretName: string; readonly defaultMode?: number };
  readonly configMap?: { readonly name: string };
}

export const documentsOf = (text: string): Manifest[] =>
  parseAllDocuments(text).map((document) => {
    if (document.errors[0]) throw document.errors[0];
    return document.toJS() as Manifest;
  });

export const read = (path: string): Manifest[] => documentsOf(deployFile(`kubernetes/${path}`));

/** Folders with a kustomization, and the other files in each. */
export function kustomizations(): { readonly path: string; readonly files: readonly string[] }[] {
  const paths = readdirSync(folder, { recursive: true }).map(String);
  return paths
    .filter((path) => path.endsWith("/kustomization.yaml"))
    .map((path) => path.replace(/\/kustomization\.yaml$/, ""))
    .map((path) => ({ path, files: readdirSync(join(folder, path)).filter((file) => file !== "kustomization.yaml") }));
}

/** What `kubectl kustomize` makes of a folder. */
export const built = (path: string): Manifest[] =>
  documentsOf(execFileSync("kubectl", ["kustomize", join(folder, path)], { encoding: "utf8" }));

export const podOf = (manifest: Manifest): Pod =>
  (manifest.spec as unknown as { template: { spec: Pod } }).template.spec;

export const labelsOfPod = (manifest: Manifest): Labels =>
  (manifest.spec as unknown as { template: { metadata: { labels: Labels } } }).template.metadata.labels;

export const environmentOf = ({ env = [] }: Container): Record<string, string> =>
  Object.fromEntries(env.map(({ name, value = "" }) => [name, value]));

export const selects = (wanted: Labels, labels: Labels): boolean =>
  Object.entries(wanted).every(([name, value]) => labels[name] === value);

type Model = new (manifest: object) => { validate(): void };

/** By group and version, of which each kind is an export. */
const models: Readonly<Record<string, object>> = {
  v1: core,
  "apps/v1": apps,
  "networking.k8s.io/v1": networking,
  "policy/v1": policy,
  "monitoring.coreos.com/v1": monitoring,
};

function modelOf({ apiVersion, kind }: Manifest): Model {
  const model = (models[apiVersion] as Readonly<Record<string, Model>> | undefined)?.[kind];
  if (!model) throw new Error(`no schema of ${apiVersion} ${kind}`);
  return model;
}

/** What its schema has against a document. An unknown key is what the schema has not asked for. */
export function mistakesIn(manifest: Manifest): string[] {
  const asked = new Set<string>();
  const model = new (modelOf(manifest))(manifest);
  for (const [key, value] of Object.entries(model)) Reflect.set(model, key, watched(value, `/${key}`, asked));
  try {
    model.validate();
  } catch (error) {
    return [(error as Error).message];
  }
  return pathsIn(manifest, "")
    .filter((path) => !/^\/(apiVersion|kind)$/.test(path) && !asked.has(path))
    .map((path) => `${path}: unknown`);
}

/** Remembers which keys somebody looks at. */
function watched(value: unknown, path: string, asked: Set<string>): unknown {
  asked.add(path);
  if (typeof value !== "object" || value === null) return value;
  return new Proxy(value, {
    get: (target, key, receiver) => {
      const found: unknown = Reflect.get(target, key, receiver);
      if (typeof key === "symbol" || !Object.hasOwn(target, key) || key === "length") return found;
      return watched(found, `${path}/${key}`, asked);
    },
  });
}

function pathsIn(value: unknown, path: string): string[] {
  if (typeof value !== "object" || value === null) return [];
  return Object.entries(value).flatMap(([key, below]) => {
    const here = `${path}/${key}`;
    return [here, ...pathsIn(below, here)];
  });
}

// What the image does: read-only, not root, without a capability.
import { chmodSync, chownSync, copyFileSync, mkdirSync, readdirSync, statSync, writeFileSync } from "node:fs";
import { get } from "node:https";
import { createServer } from "node:net";
import { join } from "node:path";
import { connect } from "@leasehold/client";
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from "vitest";
import { leasehold } from "../cli/support.js";
import { until } from "../e2e/support.js";
import { certificateAuthority } from "../services/certificates.mjs";
import { canContain, Image, type Run } from "./container.js";
import { type Container, environmentOf, folder, podOf, read } from "./manifests.js";
import { deployFile, imageEnvironment, stagesOf, textsOf } from "./support.js";

const possible = canContain();

async function freePort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await new Promise((resolve) => server.once("listening", resolve));
  const address = server.address();
  await new Promise((resolve) => server.close(resolve));
  return typeof address === "object" && address !== null ? address.port : 0;
}

describe.skipIf(!possible)(`the image${possible ? "" : " (needs root and mounts: not run)"}`, () => {
  const last = stagesOf(deployFile("docker/Dockerfile")).at(-1) ?? [];
  const list = (name: string) => JSON.parse(textsOf(last, name)[0] ?? "") as string[];
  const serve = [...list("ENTRYPOINT"), ...list("CMD")];
  const [, health = ""] = /CMD (\[.*\])$/.exec(textsOf(last, "HEALTHCHECK")[0] ?? "") ?? [];
  let image: Image;
  let ports: Record<string, string>;
  let address: string;

  beforeAll(async () => {
    image = new Image();
    const [port, opsPort] = [await freePort(), await freePort()];
    // On the addresses of this machine's loopback only: it has no network of its own here.
    address = `127.0.0.1:${port}`;
    ports = { LEASEHOLD_LISTEN: address, LEASEHOLD_OPS_LISTEN: `127.0.0.1:${opsPort}` };
  });
  afterAll(() => image.remove());

  async function serving(env: Readonly<Record<string, string>> = {}): Promise<Run> {
    const run = image.run(serve, { ...ports, ...env });
    onTestFinished(() => void run.child.kill("SIGKILL"));
    await until(() => run.output().includes('"serving"') || run.child.exitCode !== null, 30_000);
    expect(run.child.exitCode, run.output()).toBeNull();
    return run;
  }

  const healthy = async (env: Readonly<Record<string, string>> = {}) =>
    (await image.run(JSON.parse(health), { ...ports, ...env }).exit) === 0;

  /** Both its containers, against the server. */
  async function runsTheSidecarExample(caCert: string, token: string): Promise<void> {
    const [example] = read("examples/native-sidecar.yaml");
    const [sidecar] = example === undefined ? [] : (podOf(example).initContainers ?? []);
    const [app] = example === undefined ? [] : podOf(example).containers;
    const [api, probes] = [`127.0.0.1:${await freePort()}`, `127.0.0.1:${await freePort()}`];
    const here = (text: string) => text.replace("127.0.0.1:7422", api).replace("0.0.0.0:7424", probes);
    for (const [file, text] of Object.entries({ "ca.crt": caCert, token: `${token}\n` })) {
      writeFileSync(join(image.etc, file), text, { mode: 0o440 });
      chownSync(join(image.etc, file), 0, 1000);
    }
    const command = [...list("ENTRYPOINT"), ...(sidecar?.args ?? [])].map(here);
    const beside = image.run(command, { ...environmentOf(sidecar as Container), LEASEHOLD_ADDR: address });
    onTestFinished(() => void beside.child.kill("SIGKILL"));
    const ready = () =>
      fetch(`http://${probes}/readyz`).then(
        ({ ok }) => ok,
        () => false,
      );
    await until(ready, 30_000, `${beside.output()}: readiness`);
    const working = image.run([...(app?.command ?? []), ...(app?.args ?? [])].map(here));
    onTestFinished(() => void working.child.kill("SIGKILL"));
    await until(() => working.output().includes("granted"), 30_000, "a grant");
    expect(working.output()).toMatch(/"name":"orders\/nightly"/);
    beside.child.kill("SIGTERM");
    expect(await beside.exit, beside.output()).toBe(0);
  }

  it("listens on all interfaces, and stops with exit code 78 naming LEASEHOLD_INSECURE=1", async () => {
    expect(imageEnvironment().LEASEHOLD_LISTEN).toBe("0.0.0.0:7420");
    const run = image.run(serve);
    expect(await run.exit).toBe(78);
    expect(run.output()).toMatch(/neither encrypted .*LEASEHOLD_INSECURE=1/);
  });

  it("serves, is healthy, writes to its volume only, and keeps everything when it is stopped", async () => {
    const first = await serving();
    const status = await image.run(["cat", `/proc/self/status`]);
    await status.exit;
    expect(status.output()).toMatch(/^Uid:\t1000\t1000\t1000\t1000$/m);
    for (const set of ["Prm", "Eff", "Bnd", "Inh"])
      expect(status.output()).toMatch(new RegExp(`^Cap${set}:\t0+$`, "m"));
    for (const path of ["/app/x", "/x", "/etc/leasehold/x", "/app/dist/x"]) {
      const touched = image.run(["touch", path]);
      expect(await touched.exit, path).not.toBe(0);
      expect(touched.output(), path).toContain("Read-only file system");
    }
    expect(await healthy()).toBe(true);
    const client = await connect(address);
    const { token } = await client.acquire("orders/42");
    await client.close();
    first.child.kill("SIGTERM");
    expect(await first.exit, first.output()).toBe(0);
    expect(await healthy()).toBe(false);
    expect(readdirSync(image.data)).toEqual(["data"]);
    expect(statSync(join(image.data, "data")).uid).toBe(1000);

    await serving();
    const again = await connect(address);
    onTestFinished(() => again.close());
    expect((await again.acquire("orders/42")).token).toBeGreaterThan(token);
  });

  it("serves as Kubernetes runs it: encrypted, for callers with tokens, by the policy; probes need neither", async () => {
    const [set] = read("base/statefulset.yaml");
    const [container] = set === undefined ? [] : podOf(set).containers;
    const env = container === undefined ? {} : environmentOf(container);
    const ca = await certificateAuthority();
    const { certFile, keyFile } = await ca.issue("leasehold", { san: ["DNS:leasehold", "IP:127.0.0.1"] });
    const tokens = join(image.etc, "auth/tokens");
    const token = async (name: string) => {
      const made = await leasehold(["token", "new", name, "--file", tokens]);
      expect(made.code, made.stderr).toBe(0);
      return made.stdout.trim();
    };
    for (const folder of ["tls", "auth", "policy"]) mkdirSync(join(image.etc, folder));
    const [orders, prometheus] = [await token("orders"), await token("prometheus")];
    copyFileSync(certFile, join(image.etc, "tls/tls.crt"));
    copyFileSync(keyFile, join(image.etc, "tls/tls.key"));
    copyFileSync(join(folder, "base/policy.yaml"), join(image.etc, "policy/policy.yaml"));
    for (const path of ["tls/tls.crt", "tls/tls.key", "auth/tokens", "policy/policy.yaml"]) {
      chownSync(join(image.etc, path), 0, 1000); // as Kubernetes mounts a secret: fsGroup 1000, mode 0440
      chmodSync(join(image.etc, path), 0o440);
    }

    await serving(env);
    expect(await healthy(env)).toBe(true);
    expect(await healthy()).toBe(false); // plain HTTP is no answer there
    const client = await connect(address, { tls: { ca: ca.cert, serverName: "leasehold" }, token: orders });
    onTestFinished(() => client.close());
    expect((await client.acquire("orders/secure")).token).toBeGreaterThan(0);
    await expect(client.acquire("billing/1")).rejects.toMatchObject({ code: "DENIED" });
    const page = (path: string, headers = {}) =>
      httpsGet(`https://${ports.LEASEHOLD_OPS_LISTEN}${path}`, ca.cert, headers);
    expect(await page("/readyz")).toBe(200);
    expect(await page("/metrics")).toBe(401);
    expect(await page("/metrics", { authorization: `Bearer ${prometheus}` })).toBe(200);

    await runsTheSidecarExample(ca.cert, orders);
  });
});

const httpsGet = (url: string, ca: string, headers: Record<string, string>) =>
  new Promise<number | undefined>((resolve, reject) => {
    get(url, { ca, headers }, (response) => resolve(response.resume().statusCode)).on("error", reject);
  });

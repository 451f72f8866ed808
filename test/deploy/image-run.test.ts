// What the image does: read-only, not root, without a capability.
import { chmodSync, chownSync, copyFileSync, readdirSync, statSync } from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";
import { connect } from "@leasehold/client";
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from "vitest";
import { until } from "../e2e/support.js";
import { certificateAuthority } from "../services/certificates.mjs";
import { canContain, Image, type Run } from "./container.js";
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

  it("listens on all interfaces, and stops with exit code 78 naming LEASEHOLD_INSECURE=1", async () => {
    expect(imageEnvironment().LEASEHOLD_LISTEN).toBe("0.0.0.0:7420");
    const run = image.run(serve);
    expect(await run.exit).toBe(78);
    expect(run.output()).toMatch(/neither encrypted .*LEASEHOLD_INSECURE=1/);
  });

  it("serves, is healthy, writes to its volume only, and keeps everything when it is stopped", async () => {
    const first = await serving();
    const status = await image.run(["cat", `/proc/${"self"}/status`]);
    await status.exit;
    expect(status.output()).toMatch(/^Uid:\t1000\t1000\t1000\t1000$/m);
    for (const set of ["Prm", "Eff", "Bnd", "Inh"])
      expect(status.output()).toMatch(new RegExp(`^Cap${set}:\t0+$`, "m"));
    for (const path of ["/app/x", "/x", "/etc/leasehold/x", "/app/dist/x"]) {
      expect(await image.run(["touch", path]).exit, path).not.toBe(0);
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

  it("serves encrypted, and is looked at without a certificate", async () => {
    const ca = await certificateAuthority();
    const { certFile, keyFile } = await ca.issue("leasehold", { san: ["DNS:leasehold"] });
    for (const [from, to] of [
      [certFile, "tls.crt"],
      [keyFile, "tls.key"],
      [ca.certFile, "ca.crt"],
    ] as const) {
      const path = join(image.etc, to);
      copyFileSync(from, path);
      chownSync(path, 0, 1000); // as Kubernetes mounts a secret: fsGroup 1000, mode 0440
      chmodSync(path, 0o440);
    }
    const at = (file: string) => `/etc/leasehold/${file}`;
    const tls = { LEASEHOLD_TLS_CERT: at("tls.crt"), LEASEHOLD_TLS_KEY: at("tls.key") };
    const clients = { LEASEHOLD_TLS_CLIENT_CA: at("ca.crt"), LEASEHOLD_TLS_CLIENT_AUTH: "required" };
    await serving({ ...tls, ...clients });
    expect(await healthy(tls)).toBe(true);
    expect(await healthy()).toBe(false); // plain HTTP is no answer there
  });
});

// Encryption on both ports: what clients with other ideas are told, and certificates that change under load.
import { copyFileSync, mkdirSync, renameSync, symlinkSync, unlinkSync, writeFileSync } from "node:fs";
import { type RequestOptions, request } from "node:https";
import { join } from "node:path";
import { type ConnectionOptions, connect as connectTls, type TLSSocket } from "node:tls";
import { connectivityState, credentials } from "@grpc/grpc-js";
import { connect, type LeaseholdError } from "@leasehold/client";
import { afterAll, beforeAll, expect, it, onTestFinished } from "vitest";
import type { RunningServer } from "../../src/server/server.js";
import { certificateAuthority } from "../services/certificates.mjs";
import { until } from "../services/processes.mjs";
import { describeWithServices } from "../services/vitest.js";
import {
  answers,
  call,
  connection,
  everywhere,
  expectNoSecretLogged,
  file,
  folder,
  secret,
  serve,
  tokenLine,
} from "./support.js";

type Authority = Awaited<ReturnType<typeof certificateAuthority>>;
type Issued = Awaited<ReturnType<Authority["issue"]>>;

let authority: Authority;
let other: Authority;
let client: Issued;
const names = { san: ["DNS:localhost", "IP:127.0.0.1"] };

/** A folder as Kubernetes mounts it: files are symbolic links through another one, which is exchanged. */
let mounts = 0;
function mount(content: Record<string, string>) {
  const path = join(folder, `mount-${++mounts}`);
  mkdirSync(path);
  let version = 0;
  const exchange = (files: Record<string, string>) => {
    const version_ = join(path, `..v${++version}`);
    mkdirSync(version_);
    for (const [name, text] of Object.entries(files)) writeFileSync(join(version_, name), text);
    symlinkSync(version_, join(path, "..next"));
    renameSync(join(path, "..next"), join(path, "..data"));
  };
  exchange(content);
  for (const name of Object.keys(content)) symlinkSync(join("..data", name), join(path, name));
  return { path, exchange };
}

/** The serial number of what a port shows to a new connection. */
function shown(address: string, options: ConnectionOptions = {}): Promise<string> {
  const [host = "", port = ""] = address.split(":");
  return new Promise((resolve, reject) => {
    const socket: TLSSocket = connectTls(
      { host, port: Number(port), ca: authority.cert, ALPNProtocols: ["h2", "http/1.1"], ...options },
      () => {
        resolve(socket.getPeerCertificate().serialNumber);
        socket.destroy();
      },
    );
    socket.on("error", reject);
  });
}

/** The status of a page on the ops port; rejects when there is no connection. */
function page(server: RunningServer, path: string, options: RequestOptions = {}): Promise<number> {
  return new Promise((resolve, reject) => {
    const asked = request(
      `https://${server.opsAddress}${path}`,
      { ca: authority.cert, agent: false, ...options },
      (answer) => {
        answer.resume();
        resolve(answer.statusCode ?? 0);
      },
    );
    asked.on("error", reject);
    asked.end();
  });
}

const failure = (promise: Promise<unknown>): Promise<LeaseholdError> =>
  promise.then(
    () => Promise.reject(new Error("it succeeded")),
    (error: LeaseholdError) => error,
  );

const local = (server: RunningServer) => server.address.replace("127.0.0.1", "localhost");

afterAll(expectNoSecretLogged);

describeWithServices("TLS", ["openssl"], () => {
  beforeAll(async () => {
    authority = await certificateAuthority();
    other = await certificateAuthority("another");
    client = await authority.issue("client", { san: ["URI:spiffe://prod/ci"] });
  });

  async function files() {
    const first = await authority.issue("server", names);
    return mount({ cert: first.cert, key: first.key, ca: authority.cert });
  }
  const at = (path: string) => ({ tlsCert: join(path, "cert"), tlsKey: join(path, "key") });

  it("encrypts both ports with TLS 1.2 at least, 1.3 if it can be", async () => {
    const server = await serve(at((await files()).path));
    expect(await page(server, "/healthz")).toBe(200);
    for (const address of [server.address, server.opsAddress ?? ""]) {
      await expect(shown(address, { maxVersion: "TLSv1.1", minVersion: "TLSv1.1" })).rejects.toThrow();
      await shown(address, { maxVersion: "TLSv1.2" });
      const [host = "", port = ""] = address.split(":");
      const socket = connectTls({ host, port: Number(port), ca: authority.cert, ALPNProtocols: ["h2", "http/1.1"] });
      await new Promise((resolve) => socket.once("secureConnect", resolve));
      expect(socket.getProtocol()).toBe("TLSv1.3");
      socket.destroy();
    }
  });

  it("tells clients with other ideas what is wrong", async () => {
    const encrypted = await serve(at((await files()).path));
    const required = { tlsClientCa: authority.certFile, tlsClientAuth: "required" };
    const mutual = await serve({ ...at((await files()).path), ...required });
    const plain = await serve({});
    const timeout = "500ms";
    const ca = authority.cert;
    expect(await failure(connect(local(encrypted), { timeout }))).toMatchObject({
      code: "UNREACHABLE",
      message: `cannot reach ${local(encrypted)} (the connection was closed at once; it may want TLS, or another client certificate)`,
    });
    expect(await failure(connect(local(plain), { tls: { ca }, timeout }))).toMatchObject({
      code: "UNREACHABLE",
      message: `cannot reach ${local(plain)} (it does not speak TLS)`,
    });
    expect(await failure(connect(local(encrypted), { tls: { ca: other.cert }, timeout }))).toMatchObject({
      message: `cannot reach ${local(encrypted)} (its certificate is of no authority that is trusted here)`,
    });
    const misnamed = { ca, serverName: "elsewhere.example.org" };
    expect(await failure(connect(local(encrypted), { tls: misnamed, timeout }))).toMatchObject({
      message: `cannot reach ${local(encrypted)} (its certificate is for another name)`,
    });
    const foreign = await other.issue("client", { san: ["URI:spiffe://prod/ci"] });
    for (const own of [{}, { cert: foreign.cert, key: foreign.key }]) {
      expect((await failure(connect(local(mutual), { tls: { ca, ...own }, timeout }))).message).toMatch(
        /wants a client certificate|does not accept the client certificate|another client certificate/,
      );
    }
  });

  it("asks for a client certificate on the ops port and requires none", async () => {
    const required = { tlsClientCa: authority.certFile, tlsClientAuth: "required" };
    const server = await serve({ ...at((await files()).path), ...required });
    expect(await page(server, "/healthz")).toBe(200);
    expect(await page(server, "/healthz", { cert: client.cert, key: client.key })).toBe(200);
    const foreign = await other.issue("client", { san: ["URI:spiffe://prod/ci"] });
    expect(await page(server, "/healthz", { cert: foreign.cert, key: foreign.key })).toBe(200);
    expect(await page(server, "/readyz")).toBe(200);
    // What is not for probes wants one that is trusted.
    expect(await page(server, "/metrics")).toBe(401);
    expect(await page(server, "/metrics", { cert: foreign.cert, key: foreign.key })).toBe(401);
    expect(await page(server, "/metrics", { cert: client.cert, key: client.key })).toBe(200);
  });

  it("takes tokens on the ops port, too", async () => {
    const token = secret("lh_oper-oper-oper-oper-oper-oper-oper-oper-oper");
    const server = await serve({ ...at((await files()).path), authTokens: file(tokenLine("prometheus", token)) });
    const showing = (authorization: string) => page(server, "/metrics", { headers: { authorization } });
    expect(await page(server, "/metrics")).toBe(401);
    expect(await showing(`Bearer ${token}x`)).toBe(401);
    expect(await showing(`Bearer ${token}`)).toBe(200);
  });

  it("exchanges its certificate under load: no call fails, and what is open stays open", async () => {
    const token = secret("lh_load-load-load-load-load-load-load-load-load");
    const { path, exchange } = await files();
    const server = await serve({ ...at(path), authTokens: file(tokenLine("ci", token)) });
    const tls = { ca: authority.cert };
    const holder = await connect(local(server), { tls, token, ttl: "2s" });
    onTestFinished(() => holder.close());
    const states: string[] = [];
    holder.on("state", (state) => states.push(state));
    const held = await holder.acquire("held");
    const caller = {
      credentials: credentials.createSsl(Buffer.from(authority.cert)),
      authorization: `Bearer ${token}`,
    };
    const shared = connection(local(server), caller);
    onTestFinished(() => shared.close());

    expect(await call(shared, caller)).toBe("OK");
    let over = false;
    let connections = 1;
    const { READY } = connectivityState;
    shared.getChannel().watchConnectivityState(READY, Date.now() + 60_000, (late) => {
      if (late === undefined && !over) connections += 1;
    });
    const answered: string[] = [];
    const onOneConnection = async () => {
      while (!over) answered.push(await call(shared, caller));
    };
    const onManyConnections = async () => {
      while (!over) {
        const own = connection(local(server), caller);
        answered.push(await call(own, caller));
        own.close();
      }
    };
    const load = [onOneConnection(), onOneConnection(), onManyConnections(), onManyConnections()];
    const seen = new Set([await shown(server.address)]);
    for (let turn = 0; turn < 5; turn++) {
      const next = await authority.issue("server", names);
      exchange({ cert: next.cert, key: next.key, ca: authority.cert });
      for (const address of [server.address, server.opsAddress ?? ""]) {
        await until(async () => !seen.has(await shown(address)), { what: "the new certificate is served" });
      }
      seen.add(await shown(server.address));
      const before = answered.length;
      await until(() => answered.length > before + 20, { what: "calls are answered" });
    }
    over = true;
    await Promise.all(load);
    expect(connections).toBe(1);
    expect(answered.length).toBeGreaterThan(100);
    expect(new Set(answered)).toEqual(new Set(["OK"]));
    expect(seen.size).toBe(6);
    expect(held.state.is).toBe("held");
    expect(states).toEqual([]); // the session's stream has never been anything but connected
    expect(await held.release()).toBe(true);
  });

  it("goes on with the certificate that it has while the new one is wrong, and says what is", async () => {
    const { path, exchange } = await files();
    const server = await serve(at(path), { reloadPollMs: 3_600_000 });
    const before = await shown(server.address);
    const [a, b] = [await authority.issue("a", names), await authority.issue("b", names)];
    const past = await authority.issue("past", { ...names, notAfter: new Date(Date.now() - 60_000) });
    const wrong: [RegExp, Record<string, string>][] = [
      [/tlsKey: .*it is not the key of the certificate/, { cert: a.cert, key: b.key }],
      [/tlsCert: .*it expired on /, { cert: past.cert, key: past.key }],
      [/tlsCert: .*there is no certificate in it/, { cert: "", key: a.key }],
      [/tlsKey: .*there is no key in it/, { cert: a.cert, key: "x" }],
      [/tlsCert: .*one of its certificates cannot be read/, { cert: a.cert.replace(/\n./, "\n!"), key: a.key }],
      [/tlsKey: .*it cannot be read \(ENOENT\)/, { cert: a.cert }],
    ];
    for (const [message, content] of wrong) {
      exchange(content);
      await server.reload();
      expect(server.log.trim().split("\n").at(-1)).toMatch(message);
      expect(await shown(server.address)).toBe(before);
      await expect(serve(at(path))).rejects.toThrow(message);
    }
    exchange({ cert: a.cert, key: a.key });
    await server.reload();
    expect(await shown(server.address)).not.toBe(before);
    expect(server.log).not.toContain("PRIVATE KEY");
  });

  it("trusts a new authority from the next connection on, and ends what an old one has vouched for", async () => {
    const { path, exchange } = await files();
    const own = await authority.issue("server", names);
    const mutual = { tlsClientCa: join(path, "ca"), tlsClientAuth: "required" };
    const server = await serve({ ...at(path), ...mutual }, { reloadPollMs: 3_600_000 });
    const foreign = await other.issue("client", { san: ["URI:spiffe://prod/other"] });
    const tlsOf = ({ cert, key }: Issued) => ({ tls: { ca: authority.cert, cert, key }, timeout: "500ms" as const });
    const grpc = ({ cert, key }: Issued) => ({
      credentials: credentials.createSsl(Buffer.from(authority.cert), Buffer.from(key), Buffer.from(cert)),
    });

    const holder = await connect(local(server), { ...tlsOf(client), ttl: "2s" });
    onTestFinished(() => holder.close({ timeout: "100ms" }));
    const held = await holder.acquire("held");
    const states: string[] = [];
    holder.on("state", (state) => states.push(state));
    expect(await failure(connect(local(server), tlsOf(foreign)))).toMatchObject({ code: "UNREACHABLE" });
    exchange({ cert: own.cert, key: own.key, ca: authority.cert + other.cert });
    await server.reload();
    expect(await answers(local(server), grpc(foreign))).toEqual(everywhere("OK"));
    expect(states).toEqual([]); // one more is no reason to connect again

    const staying = await connect(local(server), { ...tlsOf(foreign), ttl: "10s" });
    onTestFinished(() => staying.close({ timeout: "100ms" }));
    const kept = await staying.acquire("kept");
    const stays: string[] = [];
    staying.on("state", (state) => stays.push(state));
    const old = connection(local(server), grpc(client));
    onTestFinished(() => old.close());
    expect(await call(old, grpc(client))).toBe("OK");
    exchange({ cert: own.cert, key: own.key, ca: other.cert });
    await server.reload();
    await until(() => states.includes("disconnected"), { what: "the session's stream ends" });
    await until(() => stays.includes("connected"), { what: "whoever is still trusted connects anew" });
    expect(kept.state.is).toBe("held");
    expect(await kept.release()).toBe(true);
    await until(() => held.state.is === "lost", { what: "the lease runs out, as nobody renews it" });
    expect(await call(old, grpc(client))).not.toBe("OK");
    expect(await answers(local(server), grpc(foreign))).toEqual(everywhere("OK"));
  });

  it("is not deceived by a session of TLS that was made before", async () => {
    const { path, exchange } = await files();
    const own = await authority.issue("server", names);
    const mutual = { tlsClientCa: join(path, "ca"), tlsClientAuth: "required" };
    const server = await serve({ ...at(path), ...mutual }, { reloadPollMs: 3_600_000 });
    const [host = "", port = ""] = server.address.split(":");
    const shape = {
      host,
      port: Number(port),
      ca: authority.cert,
      cert: client.cert,
      key: client.key,
      ALPNProtocols: ["h2"],
    };
    const session = await new Promise<Buffer>((resolve, reject) => {
      const socket = connectTls({ ...shape, maxVersion: "TLSv1.2" });
      socket.once("session", (made) => {
        resolve(made);
        socket.destroy();
      });
      socket.once("error", reject);
    });
    const reused = () =>
      new Promise<boolean | string>((resolve) => {
        const socket = connectTls({ ...shape, maxVersion: "TLSv1.2", session }, () => {
          resolve(socket.isSessionReused());
          socket.destroy();
        });
        socket.on("error", (error) => resolve(error.message));
      });
    expect(await reused()).toBe(true); // the test can fail
    exchange({ cert: own.cert, key: own.key, ca: other.cert });
    await server.reload();
    expect(await reused()).not.toBe(true);
  });

  it("lets a client exchange its own certificate while it holds a lock", async () => {
    const mutual = { tlsClientCa: authority.certFile, tlsClientAuth: "required" };
    const server = await serve({ ...at((await files()).path), ...mutual });
    let own = await authority.issue("client", {
      san: ["URI:spiffe://prod/ci"],
      notAfter: new Date(Date.now() + 3_000),
    });
    const tls = () => ({ ca: authority.cert, cert: own.cert, key: own.key });
    const holder = await connect(local(server), { tls, ttl: "5s" });
    onTestFinished(() => holder.close());
    const held = await holder.acquire("held");
    const states: string[] = [];
    holder.on("state", (state) => states.push(state));
    own = await authority.issue("client", { san: ["URI:spiffe://prod/ci"] });
    await until(() => states.includes("connected"), { what: "the client has connected anew" });
    expect(held.state.is).toBe("held");
    expect(await held.release()).toBe(true);
  });

  it("serves a certificate that is replaced by renaming, and one that is written in place", async () => {
    const first = await authority.issue("server", names);
    const paths = { tlsCert: file(first.cert), tlsKey: file(first.key) };
    const server = await serve(paths);
    const seen = new Set([await shown(server.address)]);
    const replace = async (put: (issued: Issued) => void) => {
      put(await authority.issue("server", names));
      await until(async () => !seen.has(await shown(server.address)), { what: "the new certificate is served" });
      seen.add(await shown(server.address));
    };
    await replace(({ certFile, keyFile }) => {
      for (const [from, to] of [
        [keyFile, paths.tlsKey],
        [certFile, paths.tlsCert],
      ] as const) {
        copyFileSync(from, `${to}.new`);
        renameSync(`${to}.new`, to);
      }
    });
    await replace(({ cert, key }) => {
      writeFileSync(paths.tlsCert, cert);
      writeFileSync(paths.tlsKey, key);
    });
    await replace(({ cert, key }) => {
      unlinkSync(paths.tlsCert);
      writeFileSync(paths.tlsKey, key);
      writeFileSync(paths.tlsCert, cert);
    });
    expect(seen.size).toBe(4);
  });
});

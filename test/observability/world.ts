/** Real servers of the tests of metrics: plain, encrypting, asking who calls. */
import { createHash, randomBytes } from "node:crypto";
import { writeFileSync } from "node:fs";
import { get } from "node:https";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { credentials, Client as Grpc, Metadata } from "@grpc/grpc-js";
import { onTestFinished } from "vitest";
import { type Client, type ConnectOptions, connect } from "../../src/client/index.js";
import { encode, v1 } from "../../src/client/wire/index.js";
import { defaultConfig } from "../../src/server/config/schema.js";
import { LevelJournal } from "../../src/server/journal/level.js";
import { type RunningServer, startServer } from "../../src/server/server.js";
import { temporaryFolder, until } from "../e2e/support.js";
import { UnaryClient } from "../e2e/unary-client.js";
import { certificateAuthority } from "../services/certificates.mjs";
import { SlowJournal } from "./support.js";

/** A server of a test's own, with a disk that obeys. */
export class World {
  journal!: SlowJournal;
  server!: RunningServer;
  /** A write of the journal fails while this is set. */
  failing = false;
  /** With which Prometheus calls. */
  token: string | undefined;
  authority: string | undefined;

  private constructor(
    readonly folder: string,
    private options: Readonly<Record<string, unknown>>,
  ) {}

  static async create(options: Readonly<Record<string, unknown>> = {}, folder?: string): Promise<World> {
    const world = new World(folder ?? (await temporaryFolder()), options);
    onTestFinished(() => world.stop());
    await world.start();
    return world;
  }

  async start(): Promise<void> {
    const store = join(this.folder, "store");
    const set = { listen: "127.0.0.1:0", opsListen: "127.0.0.1:0", store: `level:${store}`, drainMsMax: 300 };
    this.server = await startServer(defaultConfig({ ...set, ...this.options }), {
      openJournal: (observer) => {
        const onStep = () => {
          if (this.failing) throw new Error("the disk has failed");
        };
        this.journal = new SlowJournal(new LevelJournal(store, { observer, onStep }));
        return this.journal;
      },
    });
  }

  /** Starts it again, with other options. */
  async restart(options: Readonly<Record<string, unknown>> = {}): Promise<void> {
    await this.stop();
    this.options = { ...this.options, ...options };
    await this.start();
  }

  async stop(): Promise<void> {
    if (this.journal) this.journal.delayMs = 0;
    if (this.failing) {
      this.failing = false;
      // It is opened again and again; only then nobody writes into its folder any more.
      await until(async () => (await this.scrape()).get("leasehold_journal_up") === 1);
    }
    await this.server?.stop();
  }

  async connect(options: ConnectOptions = {}): Promise<Client> {
    const client = await connect(this.server.address, options);
    client.on("warning", () => undefined);
    onTestFinished(() => client.close({ timeout: "500ms" }));
    return client;
  }

  unary(): UnaryClient {
    return new UnaryClient(this.server.address);
  }

  /** A stream that says what the test wrote, and nothing more. */
  attach(hello: object, headers: Readonly<Record<string, string>> = {}) {
    const raw = (bytes: Buffer) => bytes;
    const grpc = new Grpc(this.server.address, credentials.createInsecure(), { "grpc.enable_http_proxy": 0 });
    onTestFinished(() => grpc.close());
    const metadata = new Metadata();
    for (const [name, value] of Object.entries(headers)) metadata.set(name, value);
    const stream = grpc.makeBidiStreamRequest("/leasehold.v1.SessionService/Attach", raw, raw, metadata);
    stream.on("error", () => undefined);
    stream.on("data", () => undefined);
    stream.write(encode(v1.AttachRequest, { frame: 1, hello: { epoch: 1, client: "raw", ...hello } }));
    return stream;
  }

  /** As Prometheus gets it. */
  async exposition(): Promise<string> {
    const { authority, token, server } = this;
    const headers = token === undefined ? {} : { authorization: `Bearer ${token}` };
    if (authority === undefined) {
      const response = await fetch(`http://${server.opsAddress}/metrics`, { headers });
      if (response.status !== 200) throw new Error(`/metrics: ${response.status}`);
      return response.text();
    }
    return new Promise((resolve, reject) => {
      const options = { ca: authority, servername: "localhost", headers, agent: false };
      get(`https://${server.opsAddress}/metrics`, options, (response) => text(response).then(resolve, reject)).on(
        "error",
        reject,
      );
    });
  }

  /** All series: `name{labels}` and value. */
  async scrape(): Promise<Map<string, number>> {
    const lines = (await this.exposition()).split("\n").filter((line) => line !== "" && !line.startsWith("#"));
    return new Map(
      lines.map((line) => {
        const space = line.lastIndexOf(" ");
        return [line.slice(0, space), Number(line.slice(space + 1))];
      }),
    );
  }
}

const authorities = new WeakMap<World, Awaited<ReturnType<typeof certificateAuthority>>>();

/** Puts a certificate in place that is good for so long. */
export async function issue(world: World, hours: number): Promise<void> {
  const notAfter = new Date(Date.now() + hours * 3_600_000);
  const issued = await authorities.get(world)?.issue("server", { san: ["DNS:localhost"], notAfter });
  if (issued === undefined) throw new Error("this world has no authority");
  writeFileSync(join(world.folder, "tls.crt"), issued.cert);
  writeFileSync(join(world.folder, "tls.key"), issued.key);
}

export const encrypting = async () => {
  const world = await World.create();
  const authority = await certificateAuthority();
  authorities.set(world, authority);
  world.authority = authority.cert;
  await issue(world, 24);
  await world.restart({ tlsCert: join(world.folder, "tls.crt"), tlsKey: join(world.folder, "tls.key") });
  return world;
};

/** The only token from now on. */
export function newToken(folder: string): string {
  const token = `lh_${randomBytes(32).toString("base64url")}`;
  const digest = createHash("sha256").update(token).digest("hex");
  writeFileSync(join(folder, "tokens"), `prometheus sha256:${digest}\n`);
  return token;
}

export const authenticating = async () => {
  const folder = await temporaryFolder();
  const token = newToken(folder);
  const world = await World.create({ authTokens: join(folder, "tokens") }, folder);
  world.token = token;
  return world;
};

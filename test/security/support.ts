/** Servers that ask who calls, in this process; what they answer to whom; and a watch on what they log. */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { type ChannelCredentials, Client, credentials, Metadata, type ServiceError } from "@grpc/grpc-js";
import { decodeStatus, encode, v1 } from "@leasehold/client/wire";
import pino from "pino";
import { afterAll, expect, onTestFinished } from "vitest";
import { defaultConfig } from "../../src/server/config/schema.js";
import { digestOf } from "../../src/server/security/tokens.js";
import { type RunningServer, type ServerHooks, startServer } from "../../src/server/server.js";
import { removeFolder, temporaryFolder } from "../services/processes.mjs";

export const folder = temporaryFolder("security");
afterAll(() => removeFolder(folder));

let files = 0;

/** A new file with this content. */
export function file(content: string): string {
  const name = join(folder, `file-${++files}`);
  writeFileSync(name, content, { mode: 0o600 });
  return name;
}

/** The line of a token in a server's file. */
export const tokenLine = (name: string, token: string, expires = "") =>
  `${name} sha256:${digestOf(token).toString("hex")}${expires === "" ? "" : ` expires=${expires}`}\n`;

const secrets = new Set<string>();
let logged = "";

/** Nothing of what is given here may be in any log of these tests; `expectNoSecretLogged` looks. */
export function secret(text: string): string {
  secrets.add(text);
  return text;
}

export function expectNoSecretLogged(): void {
  expect(logged).toContain("\n"); // the search is in something
  for (const text of secrets) expect(logged).not.toContain(text);
}

export interface Serving extends RunningServer {
  /** What it has logged so far. */
  readonly log: string;
}

/** Starts a server that logs everything, on free ports. Stopped when the test is over. */
export async function serve(options: Readonly<Record<string, unknown>>, hooks: ServerHooks = {}): Promise<Serving> {
  let own = "";
  const write = (line: string) => {
    own += line;
    logged += line;
  };
  const log = pino({ level: "trace", base: null }, { write });
  const config = defaultConfig({
    listen: "127.0.0.1:0",
    opsListen: "127.0.0.1:0",
    store: "memory:",
    auditLog: "none",
    ...options,
  });
  const server = await startServer(config, { log, reloadPollMs: 20, ...hooks });
  onTestFinished(() => server.stop());
  return Object.defineProperty(server as RunningServer & { log: string }, "log", { get: () => own });
}

const raw = (bytes: Buffer) => bytes;

export interface Caller {
  readonly credentials?: ChannelCredentials;
  readonly authorization?: string;
}

/** "OK", or the reason and the message of the refusal. */
export type Answer = string;

/** What this caller is answered, by whatever way it comes. */
export async function answers(
  address: string,
  caller: Caller = {},
): Promise<Record<"unary" | "session" | "watch", Answer>> {
  const client = connection(address, caller);
  try {
    const [unary, session, watch] = await Promise.all([
      call(client, caller),
      attach(client, caller).first,
      watchAll(client, caller).first,
    ]);
    return { unary, session, watch };
  } finally {
    client.close();
  }
}

/** The same answer by every way. */
export const everywhere = (answer: Answer) => ({ unary: answer, session: answer, watch: answer });

export function connection(address: string, { credentials: own }: Caller): Client {
  return new Client(address, own ?? credentials.createInsecure(), {
    "grpc.enable_http_proxy": 0,
    "grpc.use_local_subchannel_pool": 1,
  });
}

function headers({ authorization }: Caller): Metadata {
  const metadata = new Metadata();
  if (authorization !== undefined) metadata.set("authorization", authorization);
  return metadata;
}

const bounded = () => ({ deadline: Date.now() + 10_000 });

function answerOf(error: Pick<ServiceError, "details" | "metadata">): Answer {
  const bytes = error.metadata.get("grpc-status-details-bin")[0];
  const status = Buffer.isBuffer(bytes) ? decodeStatus(bytes) : undefined;
  return status ? `${status.reason}: ${status.message}` : error.details;
}

const DESCRIBE = "/leasehold.v1.LockService/DescribeLock";

/** Calls a method of one lock, whose request is like that of DescribeLock in its first field. */
export function call(client: Client, caller: Caller, path = DESCRIBE): Promise<Answer> {
  const request = encode(v1.DescribeLockRequest, { name: "a" });
  return new Promise((resolve) =>
    client.makeUnaryRequest(path, raw, raw, request, headers(caller), bounded(), (error) =>
      resolve(error === null ? "OK" : answerOf(error)),
    ),
  );
}

/** `first`: what came first, "OK" for a message; `end`: with what the stream ended. */
export interface Opened {
  readonly first: Promise<Answer>;
  readonly end: Promise<Answer>;
  close(): void;
}

export function attach(client: Client, caller: Caller): Opened {
  const stream = client.makeBidiStreamRequest("/leasehold.v1.SessionService/Attach", raw, raw, headers(caller));
  stream.write(encode(v1.AttachRequest, { frame: 1, hello: { epoch: 1, client: "test" } }));
  return opened(stream);
}

export function watchAll(client: Client, caller: Caller): Opened {
  const request = encode(v1.WatchRequest, { prefix: "" });
  return opened(client.makeServerStreamRequest("/leasehold.v1.LockService/Watch", raw, raw, request, headers(caller)));
}

function opened(stream: ReturnType<Client["makeServerStreamRequest"]>): Opened {
  const end = new Promise<Answer>((resolve) => {
    stream.on("error", (error: ServiceError) => resolve(answerOf(error)));
    stream.on("end", () => resolve("OK"));
  });
  const first = new Promise<Answer>((resolve) => {
    stream.on("data", () => resolve("OK"));
    void end.then(resolve);
  });
  void first.then(() => undefined);
  const close = () => stream.cancel();
  onTestFinished(close);
  return { first, end, close };
}

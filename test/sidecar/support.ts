/** `leasehold sidecar` as a process, and clients of it: every answer is held against its description. */
import { type ChildProcess, execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { request as httpRequest, type IncomingMessage, type RequestOptions } from "node:http";
import { text } from "node:stream/consumers";
import { Ajv2020 } from "ajv/dist/2020.js";
import { expect, onTestFinished } from "vitest";
import { openapi } from "../../src/sidecar/api/openapi.js";
import type { HoldBody, ProblemBody, StreamEvent } from "../../src/sidecar/api/schemas.js";
import { environment } from "../cli/support.js";
import { cli, until } from "../e2e/support.js";

type Json = Record<string, unknown>;

/** What an answer was, with its body as far as it is JSON. */
export interface Reply<T = Json> {
  readonly status: number;
  readonly headers: IncomingMessage["headers"];
  readonly text: string;
  readonly body: T;
}

export class SidecarProcess {
  readonly #child: ChildProcess;
  readonly #exit: Promise<number | string>;
  log = "";
  address = "";
  opsAddress = "";
  proxyAddress = "";
  ended = false;

  private constructor(flags: readonly string[], env: Readonly<Record<string, string>>) {
    this.#child = spawn(process.execPath, [cli, "sidecar", ...flags], {
      env: environment(env),
      stdio: ["ignore", "pipe", "pipe"],
    });
    const take = (chunk: Buffer) => {
      this.log += chunk;
    };
    this.#child.stdout?.on("data", take);
    this.#child.stderr?.on("data", take);
    this.#exit = once(this.#child, "close").then(([code, signal]) => {
      this.ended = true;
      return code ?? signal;
    });
    onTestFinished(async () => {
      this.#child.kill("SIGCONT");
      this.#child.kill("SIGKILL");
      await this.#exit;
    });
  }

  /** Started, and not waited for. */
  static spawn(flags: readonly string[], env: Readonly<Record<string, string>> = {}): SidecarProcess {
    return new SidecarProcess(flags, env);
  }

  /** Resolves when it serves and is connected. */
  static async start(server: { address: string }, ...flags: string[]): Promise<SidecarProcess> {
    const sidecar = new SidecarProcess(
      ["--addr", server.address, "--listen", "127.0.0.1:0", "--stop-after", "200ms", ...flags],
      {},
    );
    await sidecar.serving();
    await until(() => sidecar.log.includes('"connected"'), 20_000, `the connection (${sidecar.log})`);
    return sidecar;
  }

  async serving(): Promise<void> {
    const line = () => this.log.split("\n").find((one) => one.includes('"serving"'));
    await until(() => line() !== undefined || this.ended, 20_000, "serving");
    if (this.ended) throw new Error(`the sidecar ended:\n${this.log}`);
    Object.assign(this, JSON.parse(line() as string));
  }

  get pid(): number {
    return this.#child.pid as number;
  }

  signal(signal: NodeJS.Signals): void {
    this.#child.kill(signal);
  }

  exit(): Promise<number | string> {
    return this.#exit;
  }

  get url(): string {
    return `http://${this.address}`;
  }

  get proxyUrl(): string {
    return `http://${this.proxyAddress}`;
  }

  /** The answer, which is what the description says. */
  async ask<T = Json>(method: string, path: string, body?: unknown, options: RequestOptions = {}): Promise<Reply<T>> {
    const reply = await ask<T>(this.address, method, path, body, options);
    conforms(method, path, reply);
    return reply;
  }

  hold(path: string, options: RequestOptions = {}): HeldStream {
    return new HeldStream(this.address, path, options);
  }
}

/** Where a request goes: nothing of the path is touched on its way. */
export function target(address: string): RequestOptions {
  if (address.startsWith("unix:")) return { socketPath: address.slice(5) };
  const [host, port] = address.split(":");
  return { host, port };
}

export async function ask<T = Json>(
  address: string,
  method: string,
  path: string,
  body?: unknown,
  options: RequestOptions = {},
): Promise<Reply<T>> {
  const request = httpRequest({ ...target(address), method, path, agent: false, ...options });
  const sent = body === undefined || typeof body === "string" || Buffer.isBuffer(body) ? body : JSON.stringify(body);
  request.end(sent);
  const [response] = (await once(request, "response")) as [IncomingMessage];
  const said = await text(response);
  const isJson = /json/.test(response.headers["content-type"] ?? "") && said !== "";
  return {
    status: response.statusCode ?? 0,
    headers: response.headers,
    text: said,
    body: (isJson ? JSON.parse(said) : {}) as T,
  };
}

/** A hold that is tied to a connection. */
export class HeldStream {
  readonly events: StreamEvent[] = [];
  status = 0;
  ended = false;
  /** The body of a refusal. */
  problem: ProblemBody | undefined;
  readonly #request;
  #rest = "";

  constructor(address: string, path: string, options: RequestOptions) {
    this.#request = httpRequest({ ...target(address), method: "POST", path, agent: false, ...options });
    this.#request.on("error", () => {
      this.ended = true;
    });
    this.#request.on("response", (response) => this.#on(response, path));
    this.#request.end();
  }

  #on(response: IncomingMessage, path: string): void {
    this.status = response.statusCode ?? 0;
    const end = () => {
      this.ended = true;
    };
    if (this.status !== 200) {
      void text(response).then((said) => {
        this.problem = JSON.parse(said);
        conforms("POST", path, { status: this.status, headers: response.headers, text: said, body: this.problem });
        end();
      });
      return;
    }
    response.setEncoding("utf8");
    response.on("data", (chunk: string) => {
      const lines = (this.#rest + chunk).split("\n");
      this.#rest = lines.pop() ?? "";
      for (const line of lines) {
        const event = JSON.parse(line) as StreamEvent;
        conforms("POST", path, { status: 200, headers: response.headers, text: line, body: event });
        this.events.push(event);
      }
    });
    response.on("end", end);
    response.on("error", end);
  }

  async granted(): Promise<HoldBody> {
    await until(() => this.events.length > 0 || this.ended, 20_000, "the grant");
    const [first] = this.events;
    if (first?.event !== "granted") throw new Error(`not granted: ${JSON.stringify(this.problem ?? first)}`);
    return first;
  }

  /** The first event of that kind. */
  async event<K extends StreamEvent["event"]>(kind: K, msMax = 20_000): Promise<Extract<StreamEvent, { event: K }>> {
    const found = () => this.events.find((event) => event.event === kind);
    await until(() => found() !== undefined, msMax, `"${kind}" among ${JSON.stringify(this.events)}`);
    return found() as Extract<StreamEvent, { event: K }>;
  }

  close(): void {
    this.#request.destroy();
  }
}

// ------------------------------------------------------------------------------------------------ the description

interface Described {
  readonly paths: Record<
    string,
    Record<string, { responses: Record<string, { content: Record<string, { schema: Json }> }> }>
  >;
}

const description = openapi("0") as unknown as Described & Json;
const ajv = new Ajv2020({ strict: false });
ajv.addSchema(description, "api");

/** What was seen of the description: "GET /v1/holds 200". */
export const seen = new Set<string>();

/** Fails unless the description has such an answer to such a request. */
export function conforms(method: string, path: string, { status, headers, text: said, body }: Reply<unknown>): void {
  const bare = path.split("?")[0] as string;
  const found = Object.keys(description.paths).find((template) => matches(template, bare));
  if (found === undefined) {
    expect([404, 400]).toContain(status);
    expect(valid("#/components/schemas/Problem", body)).toBe("");
    return;
  }
  const operation = description.paths[found]?.[method === "HEAD" ? "get" : method.toLowerCase()];
  if (operation === undefined) {
    expect(status).toBe(405);
    expect(valid("#/components/schemas/Problem", body)).toBe("");
    return;
  }
  const response = operation.responses[status];
  expect(response, `${method} ${found} answers ${status} ${said}, which is not described`).toBeDefined();
  seen.add(`${method} ${found} ${status}`);
  const type = (headers["content-type"] ?? "").split(";")[0] as string;
  const schema = response?.content[type]?.schema;
  expect(schema, `${method} ${found} ${status} as ${type}`).toBeDefined();
  if (typeof schema?.$ref === "string") expect(valid(schema.$ref, body), said).toBe("");
}

function valid(reference: string, value: unknown): string {
  const check = ajv.getSchema(`api${reference}`);
  if (!check) return `no schema ${reference}`;
  return check(value) ? "" : ajv.errorsText(check.errors);
}

function matches(template: string, path: string): boolean {
  const parts = template.split("/");
  const segments = path.split("/");
  return parts.length === segments.length && parts.every((part, i) => part.startsWith("{") || part === segments[i]);
}

/** Runs a program to its end. */
export function run(file: string, args: readonly string[]): Promise<{ code: number; stdout: string; stderr: string }> {
  return new Promise((resolve) => {
    execFile(file, args, { env: environment() }, (error, stdout, stderr) => {
      resolve({ code: error ? Number(error.code) : 0, stdout, stderr });
    });
  });
}

import { spawn } from "node:child_process";
import { fileURLToPath } from "node:url";
import { Server, ServerCredentials, type ServiceDefinition, type ServiceError, status } from "@grpc/grpc-js";

export const program = fileURLToPath(new URL("../../dist/cli/main.js", import.meta.url));

export interface Ended {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** The environment without what would configure Leasehold. */
export function environment(set: Readonly<Record<string, string>> = {}): NodeJS.ProcessEnv {
  const inherited = Object.entries(process.env).filter(([name]) => !name.startsWith("LEASEHOLD_"));
  return { ...Object.fromEntries(inherited), ...set };
}

/** Runs `leasehold` to its end. */
export function leasehold(args: readonly string[], env: Readonly<Record<string, string>> = {}): Promise<Ended> {
  const child = spawn(process.execPath, [program, ...args], {
    env: environment(env),
    stdio: ["ignore", "pipe", "pipe"],
  });
  let stdout = "";
  let stderr = "";
  child.stdout.on("data", (chunk) => {
    stdout += chunk;
  });
  child.stderr.on("data", (chunk) => {
    stderr += chunk;
  });
  return new Promise((resolve, reject) => {
    child.once("error", reject);
    child.once("close", (code) => resolve({ code, stdout, stderr }));
  });
}

/** Answers one method: bytes in, bytes out. What it throws becomes the status. */
export type Method = (request: Buffer) => Buffer;

export interface FakeServer {
  readonly address: string;
  stop(): void;
}

/** A gRPC server that knows just these methods, by path. */
export async function fakeServer(methods: Readonly<Record<string, Method>>): Promise<FakeServer> {
  const server = new Server();
  const definition: Record<string, ServiceDefinition[string]> = {};
  const handlers: Record<
    string,
    (call: { request: Buffer }, done: (error: Partial<ServiceError> | null, value?: Buffer) => void) => void
  > = {};
  for (const [path, method] of Object.entries(methods)) {
    const same = (bytes: Buffer) => bytes;
    definition[path] = {
      path,
      requestStream: false,
      responseStream: false,
      requestSerialize: same,
      requestDeserialize: same,
      responseSerialize: same,
      responseDeserialize: same,
    };
    handlers[path] = (call, done) => {
      try {
        done(null, method(call.request));
      } catch (error) {
        done(typeof error === "object" ? error : { code: status.INTERNAL, details: String(error) });
      }
    };
  }
  if (Object.keys(definition).length > 0) server.addService(definition, handlers);
  const port = await new Promise<number>((resolve, reject) => {
    server.bindAsync("127.0.0.1:0", ServerCredentials.createInsecure(), (error, bound) =>
      error ? reject(error) : resolve(bound),
    );
  });
  return { address: `127.0.0.1:${port}`, stop: () => server.forceShutdown() };
}

/** What all commands that talk to a server share: the address, one unary call, and how failures become exit codes. */
import { Client, credentials, Metadata, type ServiceError, status } from "@grpc/grpc-js";
import { decode, decodeStatus, encode, type MessageType } from "@leasehold/client/wire";
import { type Command, InvalidArgumentError, Option } from "commander";
import { type Endpoint, formatEndpoint, isLocal, parseEndpoint } from "../server/config/endpoint.js";
import { plain } from "./output.js";

/** The exit codes of `leasehold`. */
export const exitCode = {
  ok: 0,
  declined: 1,
  usage: 64,
  unreachable: 69,
  internal: 70,
  busy: 75,
  denied: 77,
  config: 78,
  lost: 79,
} as const;

/** A failure that a person can do something about: one line and an exit code. */
export class CliError extends Error {
  override readonly name = "CliError";
  readonly exitCode: number;
  /** The server's reason, if it was the server that refused: "STALE_TOKEN". */
  readonly reason: string;

  constructor(message: string, code: number, reason = "") {
    super(message);
    this.exitCode = code;
    this.reason = reason;
  }
}

const DEFAULT_PORT = 7420;
export const DEFAULT_ADDR = `localhost:${DEFAULT_PORT}`;
const CALL_MS_MAX = 5_000;

/** No server answered at this address: another one may. */
class UnreachableError extends CliError {
  constructor(message: string) {
    super(message, exitCode.unreachable);
  }
}

export interface ConnectionOptions {
  /** The servers to try, in this order. */
  readonly addr: readonly Endpoint[];
  readonly json: boolean;
}

/** `--addr` and `--json`. */
export function connectionOptions(command: Command): Command {
  const addr = new Option(
    "--addr <host:port>",
    "the server: host:port, [IPv6]:port or unix:PATH; or several, with commas",
  )
    .env("LEASEHOLD_ADDR")
    .default(parseAddr(DEFAULT_ADDR), DEFAULT_ADDR)
    .argParser(parseAddr);
  return command.addOption(addr).option("--json", "print JSON, for programs", false);
}

function parseAddr(text: string): Endpoint[] {
  return text.split(",").map((part) => {
    const endpoint = parseEndpoint(part.trim()) ?? parseEndpoint(`${part.trim()}:${DEFAULT_PORT}`);
    if (!endpoint) throw new InvalidArgumentError("It is not host:port.");
    return endpoint;
  });
}

export interface UnaryMethod<In, Out> {
  /** "/leasehold.v1.LockService/ListLocks" */
  readonly path: string;
  readonly request: MessageType<In, unknown>;
  readonly response: MessageType<never, Out>;
}

/** Makes unary calls of one server. Failures are `CliError`s. */
export class Caller {
  readonly #client: Client;
  readonly address: string;

  constructor(endpoint: Endpoint) {
    this.address = formatEndpoint(endpoint);
    this.#client = new Client(this.address, credentials.createInsecure(), {
      "grpc.enable_http_proxy": isLocal(endpoint) ? 0 : 1,
      "grpc.max_receive_message_length": 64 * 1_048_576,
    });
  }

  call<In, Out>(method: UnaryMethod<In, Out>, request: In): Promise<Out> {
    const { path, request: type, response } = method;
    const deadline = Date.now() + CALL_MS_MAX;
    return new Promise((resolve, reject) => {
      const done = (error: ServiceError | null, value?: Out) =>
        error === null ? resolve(value as Out) : reject(this.#failure(error));
      const write = (message: In) => encode(type, message);
      const read = (bytes: Buffer) => decode(response, bytes);
      this.#client.makeUnaryRequest(path, write, read, request, new Metadata(), { deadline }, done);
    });
  }

  close(): void {
    this.#client.close();
  }

  #failure(error: ServiceError): CliError {
    const bytes = error.metadata?.get("grpc-status-details-bin")[0];
    const details = Buffer.isBuffer(bytes) ? decodeStatus(bytes) : undefined;
    if (details) {
      const { message, reason } = details;
      return new CliError(`${plain(message)} (${reason})`, codes[error.code] ?? exitCode.internal, reason);
    }
    if (error.code === status.UNAVAILABLE) {
      const reason = /\bE[A-Z]{3,}\b/.exec(error.details)?.[0] ?? plain(error.details);
      const message = `cannot reach ${this.address} (${reason}). Start one: npx leasehold serve`;
      return new UnreachableError(message);
    }
    if (error.code === status.DEADLINE_EXCEEDED) {
      const message = `no answer from ${this.address} within ${CALL_MS_MAX / 1_000} s`;
      return new UnreachableError(message);
    }
    if (error.code === status.UNIMPLEMENTED) {
      return new CliError(`${this.address} is no Leasehold server, or one of another version`, exitCode.internal);
    }
    return new CliError(`${this.address}: ${plain(error.details)}`, codes[error.code] ?? exitCode.internal);
  }
}

const codes: Readonly<Partial<Record<status, number>>> = {
  [status.INVALID_ARGUMENT]: exitCode.usage,
  [status.OUT_OF_RANGE]: exitCode.usage,
  [status.UNAVAILABLE]: exitCode.unreachable,
  [status.DEADLINE_EXCEEDED]: exitCode.unreachable,
  [status.RESOURCE_EXHAUSTED]: exitCode.busy,
  [status.UNAUTHENTICATED]: exitCode.denied,
  [status.PERMISSION_DENIED]: exitCode.denied,
};

/** Runs `work` with a connection that is closed afterwards: to the first of the servers that can be reached. */
export async function withServer<T>(addr: readonly Endpoint[], work: (caller: Caller) => Promise<T>): Promise<T> {
  let failure: unknown;
  for (const endpoint of addr) {
    const caller = new Caller(endpoint);
    try {
      return await work(caller);
    } catch (error) {
      failure = error;
      if (!(error instanceof UnreachableError)) break;
    } finally {
      caller.close();
    }
  }
  throw failure;
}

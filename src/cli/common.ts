/** What all commands that talk to a server share: the address, one unary call, and how failures become exit codes. */
import { Client, Metadata, type ServiceError, status } from "@grpc/grpc-js";
import { decode, decodeStatus, encode, type MessageType, whyUnreachable } from "@leasehold/client/wire";
import { type Command, InvalidArgumentError, Option } from "commander";
import { type Endpoint, formatEndpoint, isLocal, parseEndpoint } from "../server/config/endpoint.js";
import { type CredentialFlags, channelCredentials, credentialOptions, tokenOf } from "./credentials.js";
import { CliError, exitCode } from "./exit.js";
import { plain } from "./output.js";

export { CliError, exitCode } from "./exit.js";

const DEFAULT_PORT = 7420;
export const DEFAULT_ADDR = `localhost:${DEFAULT_PORT}`;
const CALL_MS_MAX = 5_000;

/** No server answered at this address: another one may. */
class UnreachableError extends CliError {
  constructor(message: string) {
    super(message, exitCode.unreachable);
  }
}

/** Where the servers are, and what is shown to them. */
export interface Servers extends CredentialFlags {
  /** The servers to try, in this order. */
  readonly addr: readonly Endpoint[];
}

export interface ConnectionOptions extends Servers {
  readonly json: boolean;
}

/** `--addr`, `--json`, and what is shown to the server. */
export function connectionOptions(command: Command): Command {
  const addr = new Option(
    "--addr <host:port>",
    "the server: host:port, [IPv6]:port or unix:PATH; or several, with commas",
  )
    .env("LEASEHOLD_ADDR")
    .default(parseAddr(DEFAULT_ADDR), DEFAULT_ADDR)
    .argParser(parseAddr);
  return credentialOptions(command.addOption(addr).option("--json", "print JSON, for programs", false));
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
  readonly #flags: CredentialFlags;
  readonly #local: boolean;
  readonly address: string;

  /** Throws a `CliError` for credentials that cannot be used. */
  constructor(endpoint: Endpoint, flags: CredentialFlags) {
    this.address = formatEndpoint(endpoint);
    this.#flags = flags;
    this.#local = isLocal(endpoint);
    this.#client = new Client(this.address, channelCredentials(endpoint, flags), {
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
      this.#client.makeUnaryRequest(path, write, read, request, this.#headers(), { deadline }, done);
    });
  }

  /** A call that is answered by a stream, which is cancelled when nobody reads on. */
  async *stream<In, Out>(method: UnaryMethod<In, Out>, request: In): AsyncGenerator<Out> {
    const { path, request: type, response } = method;
    const write = (message: In) => encode(type, message);
    const read = (bytes: Buffer) => decode(response, bytes);
    const call = this.#client.makeServerStreamRequest(path, write, read, request, this.#headers());
    let begun = false;
    try {
      for await (const message of call) {
        begun = true;
        yield message as Out;
      }
    } catch (error) {
      const { message, exitCode: code, reason } = this.#failure(error as ServiceError);
      // What has begun is not tried again with another server.
      throw begun ? new CliError(message, code, reason) : this.#failure(error as ServiceError);
    } finally {
      call.cancel();
    }
  }

  #headers(): Metadata {
    const headers = new Metadata();
    const token = tokenOf(this.#flags);
    if (token !== null) headers.set("authorization", `Bearer ${token}`);
    return headers;
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
      const { why, answers } = whyUnreachable(error.details);
      const hint = answers || !this.#local ? "" : ". Start one: npx leasehold serve";
      return new UnreachableError(`cannot reach ${this.address} (${plain(why)})${hint}`);
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
export async function withServer<T>(servers: Servers, work: (caller: Caller) => Promise<T>): Promise<T> {
  let failure: unknown;
  for (const endpoint of servers.addr) {
    const caller = new Caller(endpoint, servers);
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

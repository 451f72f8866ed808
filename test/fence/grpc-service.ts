/** A gRPC service with registers behind a fence, over real sockets; messages are JSON. */
import { fileURLToPath } from "node:url";
import * as grpc from "@grpc/grpc-js";
import { type Fence, type Fenced, holdOf, holdsOf } from "@leasehold/fence";
import {
  type CallToAdmit,
  type FenceServerInterceptor,
  type FenceServerInterceptorOptions,
  fenceClientInterceptor,
  fenceErrorOf,
  fenceServerInterceptor,
  type HighWaterStore,
} from "@leasehold/fence/grpc";
import type { Subject } from "./conformance.js";
import { startHolder } from "./holder.js";

const holders = fileURLToPath(new URL("./holders/grpc.mjs", import.meta.url));
export const SECRET = "of the tests";

export interface Message {
  readonly name?: string | undefined;
  readonly slot?: number | undefined;
  readonly value?: string | undefined;
}

type Inner = grpc.ServerInterceptingCallInterface;
type Outer = grpc.ServerInterceptingCall;
export type Settings = Partial<FenceServerInterceptorOptions<grpc.Metadata, Inner, Outer>> & {
  readonly store: HighWaterStore;
};

const serialize = (message: unknown) => Buffer.from(JSON.stringify(message));
const deserialize = (bytes: Buffer) => JSON.parse(bytes.toString("utf8")) as Message;

const method = (name: string, requestStream: boolean, responseStream: boolean) => ({
  path: `/test.Registers/${name}`,
  requestStream,
  responseStream,
  requestSerialize: serialize,
  requestDeserialize: deserialize,
  responseSerialize: serialize,
  responseDeserialize: deserialize,
});

const methods = {
  write: method("Write", false, false),
  /** Does nothing: a holder that calls it at its grant has raised the floor. */
  touch: method("Touch", false, false),
  fill: method("Fill", true, false),
  list: method("List", false, true),
  talk: method("Talk", true, true),
};

/** What the service does before it writes. Resolves with what to answer instead, if anything. */
export type Before = (message: Message, call: { readonly metadata: grpc.Metadata }) => Promise<Message | undefined>;

export class GrpcService {
  readonly registers = new Map<string, string>();
  readonly fence: FenceServerInterceptor<Inner, Outer>;
  /** Calls that have reached the server. */
  calls = 0;
  /** Calls whose handler was started. */
  handled = 0;
  target = "";
  readonly #server: grpc.Server;
  readonly #before: Before;

  constructor(settings: Settings, before: Before) {
    const authorize = ({ metadata }: CallToAdmit<grpc.Metadata>) => metadata.get("x-secret")[0] === SECRET;
    this.fence = fenceServerInterceptor({
      grpc,
      resource: ({ message, method }) => {
        if (method.endsWith("Talk")) return "talk";
        const { name = "stream", slot } = (message ?? {}) as Message;
        return slot === undefined ? name : { name, slot };
      },
      ...(settings.validate ? {} : { authorize }),
      ...settings,
    });
    this.#before = before;
    const counting: grpc.ServerInterceptor = (_method, call) => {
      this.calls += 1;
      return new grpc.ServerInterceptingCall(call);
    };
    this.#server = new grpc.Server({ interceptors: [counting, this.fence] });
    this.#server.addService(methods, {
      write: (call: grpc.ServerUnaryCall<Message, Message>, done: grpc.sendUnaryData<Message>) => {
        this.#answer(call.request, call, done);
      },
      touch: (_call: grpc.ServerUnaryCall<Message, Message>, done: grpc.sendUnaryData<Message>) => done(null, {}),
      fill: (call: grpc.ServerReadableStream<Message, Message>, done: grpc.sendUnaryData<Message>) => {
        this.#fill(call, done);
      },
      list: (call: grpc.ServerWritableStream<Message, Message>) => {
        this.handled += 1;
        for (const [name, value] of this.registers) call.write({ name, value });
        call.end();
      },
      talk: (call: grpc.ServerDuplexStream<Message, Message>) => {
        this.handled += 1;
        call.write({ value: "hello" }); // the server speaks first
        call.on("data", (message: Message) => call.write({ value: `echo ${message.value}` }));
        call.on("end", () => call.end());
      },
    });
  }

  static async start(settings: Settings, before: Before = async () => undefined): Promise<GrpcService> {
    const service = new GrpcService(settings, before);
    const credentials = grpc.ServerCredentials.createInsecure();
    const port = await new Promise<number>((resolve, reject) => {
      service.#server.bindAsync("127.0.0.1:0", credentials, (error, bound) => (error ? reject(error) : resolve(bound)));
    });
    service.target = `127.0.0.1:${port}`;
    return service;
  }

  #answer(message: Message, call: { readonly metadata: grpc.Metadata }, done: grpc.sendUnaryData<Message>): void {
    this.handled += 1;
    const { name, slot, value = "" } = message;
    this.#before(message, call).then(
      (instead) => {
        if (instead === undefined) this.registers.set(slot === undefined ? `${name}` : `${name}#${slot}`, value);
        done(null, instead ?? { value: "written" });
      },
      (error: Error) => done({ code: grpc.status.ABORTED, details: error.message }),
    );
  }

  /** Writes what has come when the stream ends. */
  #fill(call: grpc.ServerReadableStream<Message, Message>, done: grpc.sendUnaryData<Message>): void {
    this.handled += 1;
    const values: string[] = [];
    call.on("data", (message: Message) => values.push(message.value ?? ""));
    call.on("error", () => {}); // the caller has cancelled
    call.on("end", () => {
      this.registers.set("filled", values.join());
      done(null, { value: `${values.length}` });
    });
  }

  close(): void {
    this.#server.forceShutdown();
  }
}

/** A client of the service. */
export class GrpcClient {
  readonly client: grpc.Client;

  constructor(target: string) {
    this.client = new grpc.Client(target, grpc.credentials.createInsecure());
  }

  metadata(more: Readonly<Record<string, string>> = {}): grpc.Metadata {
    return grpc.Metadata.fromHttp2Headers({ "x-secret": SECRET, ...more });
  }

  /** Rejects with the fence's error, if it is one, else with the call's. */
  unary(name: "write" | "touch", message: Message, options: grpc.CallOptions = {}, metadata = this.metadata()) {
    return new Promise<Message | undefined>((resolve, reject) => {
      const { path, requestSerialize, responseDeserialize } = methods[name];
      const done: grpc.requestCallback<Message> = (error, answer) =>
        error ? reject(fenceErrorOf(error) ?? error) : resolve(answer);
      this.client.makeUnaryRequest(path, requestSerialize, responseDeserialize, message, metadata, options, done);
    });
  }

  fill(options: grpc.CallOptions = {}, metadata = this.metadata()) {
    const { path, requestSerialize, responseDeserialize } = methods.fill;
    let call: grpc.ClientWritableStream<Message> | undefined;
    const answer = new Promise<Message | undefined>((resolve, reject) => {
      const done: grpc.requestCallback<Message> = (error, message) =>
        error ? reject(fenceErrorOf(error) ?? error) : resolve(message);
      call = this.client.makeClientStreamRequest(path, requestSerialize, responseDeserialize, metadata, options, done);
    });
    return { call: call as grpc.ClientWritableStream<Message>, answer };
  }

  talk(options: grpc.CallOptions = {}, metadata = this.metadata()): grpc.ClientDuplexStream<Message, Message> {
    const { path, requestSerialize, responseDeserialize } = methods.talk;
    return this.client.makeBidiStreamRequest(path, requestSerialize, responseDeserialize, metadata, options);
  }

  list(
    message: Message,
    options: grpc.CallOptions = {},
    metadata = this.metadata(),
  ): grpc.ClientReadableStream<Message> {
    const { path, requestSerialize, responseDeserialize } = methods.list;
    return this.client.makeServerStreamRequest(path, requestSerialize, responseDeserialize, message, metadata, options);
  }

  close(): void {
    this.client.close();
  }
}

export const under = (lock: Fenced): grpc.CallOptions => ({ interceptors: [fenceClientInterceptor({ grpc, lock })] });

/** What is written to under a hold. */
export function messageFor(lock: Fenced, value?: string): Message {
  const { name, resource } = holdOf(lock);
  return { name, value, ...(resource === name ? {} : { slot: Number(resource.slice(name.length + 1)) }) };
}

/** Makes the conformance suite's subject. Floors are raised by a call that does nothing, and looked at in the store. */
export async function grpcSubject(settings: Settings, floors: Pick<Fence, "inspect" | "reset">): Promise<Subject> {
  const service = await GrpcService.start({ serialize: true, ...settings });
  const client = new GrpcClient(service.target);
  const fence: Fence = {
    async raise(lock) {
      const holds = holdsOf(lock);
      for (const hold of holds) hold.token;
      for (const hold of holds) await client.unary("touch", messageFor(hold), under(hold));
    },
    inspect: async (resource) => floors.inspect(resource),
    reset: async (resource) => floors.reset(resource),
  };
  return {
    fence,
    async write(by, value) {
      await client.unary("write", messageFor(by, value), under(by));
    },
    async read(resource) {
      await new Promise(setImmediate); // let others have a turn
      return service.registers.get(resource);
    },
    async recreate(by) {
      service.registers.delete(holdOf(by).resource);
    },
    sent: () => service.calls,
    holder(name, token, remainingMs, value) {
      return startHolder(holders, { target: service.target, secret: SECRET }, name, token, remainingMs, value);
    },
    async close() {
      client.close();
      service.close();
    },
  };
}

/**
 * Random and mutated messages, frames and requests, against a whole server that serves others meanwhile. It stays up, calls
 * nothing a bug, disturbs nobody, and has its memory back in the end.
 *
 * 20,000 by default, LEASEHOLD_FUZZ says how many (`npm run fuzz`: 100,000); LEASEHOLD_SEED repeats a run.
 */
import { once } from "node:events";
import { connect as tcpConnect } from "node:net";
import { credentials, Client as GrpcClient, type ServiceError, status } from "@grpc/grpc-js";
import { type Client, connect } from "@leasehold/client";
import { expect, onTestFinished, test } from "vitest";
import { ServerProcess, temporaryFolder, until } from "../e2e/support.js";
import { frameCorpus, helloCorpus, http2Corpus, httpCorpus, unaryCorpus, watchCorpus } from "./corpus.js";
import { Mutator, randomOf } from "./mutate.js";

const INPUTS = Number(process.env.LEASEHOLD_FUZZ ?? "20000");
const SEED = Number(process.env.LEASEHOLD_SEED ?? Math.floor(Math.random() * 2 ** 31));
const AT_ONCE = 32;
const TIMEOUT_MS = 60_000 + INPUTS * 20;
/** A lease of the fuzz is over by then, and one of a client that has to share the processor with the fuzz is not. */
const TTL_MAX = "5s";
const raw = (bytes: Buffer) => bytes;

/** What a server answers to bad input; INTERNAL would be a bug, and UNKNOWN one of the handler's. */
const PERMITTED = new Set<number>([
  status.OK,
  status.CANCELLED,
  status.INVALID_ARGUMENT,
  status.DEADLINE_EXCEEDED,
  status.NOT_FOUND,
  status.RESOURCE_EXHAUSTED,
  status.FAILED_PRECONDITION,
  status.ABORTED,
  status.OUT_OF_RANGE,
]);

class Fuzz {
  readonly #mutator = new Mutator(randomOf(SEED));
  readonly #grpc: GrpcClient;
  readonly outcomes = new Map<string, number>();
  readonly forbidden: string[] = [];

  constructor(readonly server: ServerProcess) {
    this.#grpc = new GrpcClient(server.address, credentials.createInsecure(), { "grpc.enable_http_proxy": 0 });
    onTestFinished(() => this.#grpc.close());
  }

  #input(corpus: readonly Buffer[]): Buffer {
    const m = this.#mutator;
    return m.below(20) === 0 ? m.bytes(200) : m.mutate(m.pick(corpus), corpus);
  }

  #note(what: string, code: number): void {
    const key = `${what} ${status[code]}`;
    this.outcomes.set(key, (this.outcomes.get(key) ?? 0) + 1);
    if (!PERMITTED.has(code)) this.forbidden.push(key);
  }

  async one(): Promise<void> {
    const kind = this.#mutator.below(10);
    if (kind < 6) await this.#unary();
    else if (kind < 8) await this.#session();
    else if (kind === 8) await this.#watch();
    else if (this.#mutator.below(2) === 0) await this.#tcp(this.server.opsAddress, httpCorpus);
    else await this.#tcp(this.server.address, http2Corpus);
  }

  #unary(): Promise<void> {
    const [path] = this.#mutator.pick(unaryCorpus);
    const request = this.#input(unaryCorpus.filter(([one]) => one === path).map(([, bytes]) => bytes));
    return new Promise((resolve) => {
      const deadline = Date.now() + 300;
      this.#grpc.makeUnaryRequest(`/leasehold.v1.${path}`, raw, raw, request, { deadline }, (error) => {
        this.#note("unary", error?.code ?? status.OK);
        resolve();
      });
    });
  }

  async #session(): Promise<void> {
    const good = helloCorpus[0] as Buffer;
    const hello = this.#mutator.below(3) === 0 ? this.#input(helloCorpus) : good;
    const frames = Array.from({ length: 1 + this.#mutator.below(3) }, () => this.#input(frameCorpus));
    const call = this.#grpc.makeBidiStreamRequest("/leasehold.v1.SessionService/Attach", raw, raw);
    const ended = new Promise<number>((resolve) => {
      call.on("error", (error: ServiceError) => resolve(error.code));
      call.on("end", () => resolve(status.OK));
    });
    call.on("data", () => undefined);
    for (const frame of [hello, ...frames]) call.write(frame);
    call.end();
    this.#note("session", await ended);
  }

  async #watch(): Promise<void> {
    const call = this.#grpc.makeServerStreamRequest(
      "/leasehold.v1.LockService/Watch",
      raw,
      raw,
      this.#input(watchCorpus),
      { deadline: Date.now() + 30 },
    );
    call.on("data", () => undefined);
    const code = await new Promise<number>((resolve) => {
      call.on("error", (error: ServiceError) => resolve(error.code));
      call.on("end", () => resolve(status.OK));
    });
    this.#note("watch", code);
  }

  async #tcp(address: string, corpus: readonly Buffer[]): Promise<void> {
    const [host = "", port] = address.split(":");
    const socket = tcpConnect(Number(port), host);
    socket.on("error", () => undefined); // a reset is as good as an end
    socket.resume();
    socket.end(this.#input(corpus));
    socket.setTimeout(200, () => socket.destroy());
    await once(socket, "close");
  }
}

/** Takes and releases locks all the time, and holds one throughout. */
class Bystander {
  pairs = 0;
  #stopped = false;
  readonly #done: Promise<void>;

  constructor(readonly client: Client) {
    this.#done = this.#run();
  }

  async #run(): Promise<void> {
    for (let i = 0; !this.#stopped; i++) {
      await this.client.withLock(`bystander/${i % 7}`, () => {
        this.pairs++;
      });
    }
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    await this.#done;
  }
}

async function metric(server: ServerProcess, name: string): Promise<number> {
  const text = await (await fetch(`http://${server.opsAddress}/metrics`)).text();
  const line = text.split("\n").find((one) => one.startsWith(`${name} `) || one.startsWith(`${name}{`));
  return Number(line?.split(" ").at(-1));
}

test(
  `${INPUTS} inputs that nobody should send (seed ${SEED})`,
  async () => {
    const flags = ["--limits-ttl-ms-max", TTL_MAX, "--limits-ttl-ms-default", TTL_MAX];
    const more = ["--limits-max-hold-ms-max", "1s", "--limits-lock-delay-ms-max", "1s", "--limits-wait-ms-max", "1s"];
    const store = `level:${await temporaryFolder()}/data`;
    const server = await ServerProcess.start(store, ...flags, ...more, "--limits-request-remembered-ms", "1s");
    const client = await connect(server.address, { ttl: TTL_MAX, wait: "1s" });
    onTestFinished(() => client.close());
    const held = await client.acquire("held");
    const bystander = new Bystander(client);
    const before = await metric(server, "nodejs_heap_size_used_bytes");

    const fuzz = new Fuzz(server);
    let left = INPUTS;
    const worker = async () => {
      while (left-- > 0) await fuzz.one();
    };
    await Promise.all(Array.from({ length: AT_ONCE }, worker));
    await bystander.stop();

    expect(fuzz.forbidden).toEqual([]);
    expect(server.log).not.toMatch(/this is a bug|"level":"(error|fatal)"/);
    // Good ones among them got through, bad ones did not: it is neither a wall nor a sieve.
    expect(fuzz.outcomes.get("unary OK")).toBeGreaterThan(0);
    expect(fuzz.outcomes.get("unary INVALID_ARGUMENT")).toBeGreaterThan(0);
    expect(fuzz.outcomes.get("session INVALID_ARGUMENT")).toBeGreaterThan(0);
    expect([held.state.is, bystander.pairs > INPUTS / 1_000]).toEqual(["held", true]); // and none of its calls failed

    await held.release();
    await client.close();
    await until(async () => (await metric(server, "leasehold_locks_known")) === 0, 20_000, "the end of all locks");
    await until(async () => (await metric(server, "leasehold_leases")) === 0, 20_000, "the end of all leases");
    const roomBytes = 24 * 2 ** 20;
    const heap = async () => await metric(server, "nodejs_heap_size_used_bytes");
    await until(async () => (await heap()) < before + roomBytes, 60_000, `the heap back to ${before} bytes`);
    console.log(Object.fromEntries([...fuzz.outcomes].toSorted()));
  },
  TIMEOUT_MS,
);

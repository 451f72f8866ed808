import { Client, type ClientDuplexStream, credentials } from "@grpc/grpc-js";
import { decode, encode, type leasehold, v1 } from "../../src/client/wire/index.js";

type Command = Omit<leasehold.v1.Command.$Properties, "seq">;
type Result = leasehold.v1.Result.$Properties;

const raw = (bytes: Buffer) => bytes;

/** A session by hand: no renewals, no resumption, nothing that would hide what the server does. */
export class RawSession {
  readonly #client: Client;
  readonly #stream: ClientDuplexStream<Buffer, Buffer>;
  readonly #pending = new Map<number, (result: Result) => void>();
  #out: leasehold.v1.Command.$Properties[] = [];
  #frame = 0;
  #seq = 0;
  #broken = false;
  readonly ended: Promise<void>;
  welcome!: leasehold.v1.Welcome.$Properties;

  private constructor(address: string) {
    this.#client = new Client(address, credentials.createInsecure(), { "grpc.enable_http_proxy": 0 });
    this.#stream = this.#client.makeBidiStreamRequest("/leasehold.v1.SessionService/Attach", raw, raw);
    this.ended = new Promise((resolve) => {
      const end = () => {
        this.#broken = true;
        resolve();
      };
      this.#stream.on("error", end);
      this.#stream.on("end", end);
    });
  }

  static async open(address: string): Promise<RawSession> {
    const session = new RawSession(address);
    await new Promise<void>((resolve, reject) => {
      session.#stream.on("data", (bytes: Buffer) => {
        const message = decode(v1.AttachResponse, bytes);
        if (message.welcome) {
          session.welcome = message.welcome;
          resolve();
        }
        for (const result of message.results) session.#settle(result);
      });
      void session.ended.then(() => reject(new Error("the stream ended before welcome")));
      session.#stream.write(encode(v1.AttachRequest, { frame: ++session.#frame, hello: { epoch: 1, client: "raw" } }));
    });
    return session;
  }

  /** Resolves with the answer; never, when the stream breaks before. */
  send(command: Command): Promise<Result> {
    const seq = ++this.#seq;
    return new Promise((resolve) => {
      this.#pending.set(seq, resolve);
      if (this.#out.push({ ...command, seq }) === 1) queueMicrotask(() => this.#flush());
    });
  }

  #flush(): void {
    const commands = this.#out;
    this.#out = [];
    if (!this.#broken) this.#stream.write(encode(v1.AttachRequest, { frame: ++this.#frame, commands }));
  }

  #settle(result: Result): void {
    const seq = result.seq as number;
    const resolve = this.#pending.get(seq);
    this.#pending.delete(seq);
    resolve?.(result);
  }

  /** Sends a frame that does nothing but renew. */
  renew(): void {
    if (!this.#broken) this.#stream.write(encode(v1.AttachRequest, { frame: ++this.#frame, renew: true }));
  }

  close(): void {
    this.#stream.cancel();
    this.#client.close();
  }
}

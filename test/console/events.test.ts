/** The stream of events: live, resumed, bounded, cut. */
import { get } from "node:http";
import { type Socket, connect as tcpConnect } from "node:net";
import { join } from "node:path";
import { expect, onTestFinished, test } from "vitest";
import { STREAMS_MAX } from "../../src/server/ops/api/events.js";
import { temporaryFolder, until } from "../e2e/support.js";
import { as, ask, startConsole, testAccess } from "./support.js";

interface Message {
  readonly id?: string;
  readonly event?: string;
  readonly data?: string;
}

class Stream {
  readonly messages: Message[] = [];
  status = 0;
  heartbeats = 0;
  ended = false;
  readonly #abort = new AbortController();

  static async open(url: string, query = "", headers: Record<string, string> = {}): Promise<Stream> {
    const stream = new Stream();
    const response = await fetch(`${url}/api/v1/events${query}`, { headers, signal: stream.#abort.signal });
    onTestFinished(() => stream.close());
    stream.status = response.status;
    void stream.#read(response.body as ReadableStream<Uint8Array>).catch(() => undefined);
    return stream;
  }

  close(): void {
    this.#abort.abort();
  }

  async #read(body: ReadableStream<Uint8Array>): Promise<void> {
    let text = "";
    try {
      for await (const chunk of body.pipeThrough(new TextDecoderStream())) {
        const parts = (text + chunk).split("\n\n");
        text = parts.pop() ?? "";
        for (const part of parts) this.#take(part);
      }
    } finally {
      this.ended = true;
    }
  }

  #take(part: string): void {
    if (part.startsWith(":")) this.heartbeats++;
    else this.messages.push(Object.fromEntries(part.split("\n").map((line) => line.split(/: (.*)/s).slice(0, 2))));
  }

  get position(): string {
    return this.messages.findLast(({ id }) => id !== undefined)?.id ?? "";
  }

  // biome-ignore lint/suspicious/noExplicitAny: JSON, whose fields the tests compare
  get events(): any[] {
    return this.messages.flatMap(({ data }) => JSON.parse(data ?? "{}").events ?? []);
  }

  get skipped(): number {
    return this.messages.reduce((sum, { data }) => sum + (JSON.parse(data ?? "{}").skipped ?? 0), 0);
  }
}

test("tells what happens from now on, and continues where it broke off", async () => {
  const { url, client } = await startConsole();
  const me = await client("me");
  await me.acquire("x/before");
  const stream = await Stream.open(url, "?prefix=x/");
  await until(() => stream.heartbeats > 0);
  const lock = await me.acquire("x/1");
  await me.acquire("y/1");
  await until(() => stream.events.length === 1);
  expect(stream.events).toMatchObject([{ kind: "granted", name: "x/1", token: lock.token, owner: "me" }]);
  stream.close();
  await lock.release();
  await me.acquire("x/2");
  const next = await Stream.open(url, "?prefix=x/", { "last-event-id": stream.position });
  await until(() => next.events.length === 2);
  expect(next.events).toMatchObject([
    { kind: "holdEnded", name: "x/1", end: "released" },
    { kind: "granted", name: "x/2" },
  ]);
  expect(next.skipped).toBe(0);
});

test("a position that is forgotten, or none, is told so", async () => {
  const { url } = await startConsole();
  const lost = await Stream.open(url, "", { "last-event-id": "999999999" });
  await until(() => lost.ended);
  expect(lost.messages).toEqual([{ event: "reset", data: '{"reason":"forgotten"}' }]);
  for (const id of ["0", "-1", "x", "1.5", "99999999999999999"]) {
    expect((await Stream.open(url, "", { "last-event-id": id })).status, id).toBe(400);
  }
});

test("of a flood of events a reader is told some, and how many more there were", async () => {
  const { url, client } = await startConsole();
  const me = await client("me");
  const stream = await Stream.open(url);
  await until(() => stream.heartbeats > 0);
  const locks = await Promise.all(Array.from({ length: 600 }, (_, i) => me.acquire(`flood/${i}`)));
  await until(() => stream.events.length + stream.skipped >= locks.length);
  expect(stream.events.length + stream.skipped).toBe(600);
  expect(stream.skipped).toBeGreaterThan(0);
});

test("streams are bounded, and probes and scrapes find a place beside them", async () => {
  const { url } = await startConsole();
  const streams = await Promise.all(Array.from({ length: STREAMS_MAX }, () => Stream.open(url)));
  expect(streams.map(({ status }) => status)).toEqual(streams.map(() => 200));
  const more = await ask(url, "/api/v1/events");
  expect([more.status, more.json.error.reason]).toEqual([429, "LIMIT"]);
  for (const path of ["/healthz", "/metrics", "/api/v1/status"]) expect((await ask(url, path)).status, path).toBe(200);
  streams[0]?.close();
  let again: Stream | undefined;
  await until(async () => {
    again = await Stream.open(url);
    return again.status === 200;
  });
});

test("a stream ends when credentials are withdrawn", async () => {
  const access = testAccess();
  const { url } = await startConsole(access);
  const stream = await Stream.open(url, "?prefix=ci/", as("ci"));
  await until(() => stream.heartbeats > 0);
  access.withdraw("ci");
  await until(() => stream.ended);
  expect(stream.messages.at(-1)).toMatchObject({ event: "failed", data: expect.stringContaining("UNAUTHENTICATED") });
});

/** A reader that stops to read, on a unix socket: its buffers are soon full. */
async function stoppedReader(): Promise<{ socket: Socket; watchers(): Promise<number> }> {
  const folder = await temporaryFolder();
  const path = join(folder, "ops.sock");
  const set = { opsListen: `unix:${path}`, limits: { watcherQueueEventsMax: 50 } };
  const { client } = await startConsole(undefined, set);
  const socket = tcpConnect(path, () => socket.write("GET /api/v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n"));
  socket.on("error", () => undefined);
  onTestFinished(() => void socket.destroy());
  await new Promise((resolve) => socket.once("data", resolve));
  socket.pause();
  const me = await client("o".repeat(200));
  const names = Array.from({ length: 50 }, (_, i) => `slow/${"n".repeat(480)}/${i}`);
  await until(async () => {
    const locks = await Promise.all(names.map((name) => me.acquire(name)));
    await Promise.all(locks.map((lock) => lock.release()));
    return /leasehold_watch_lagged_total [1-9]/.test(await page(path, "/metrics"));
  }, 60_000);
  return { socket, watchers: async () => JSON.parse(await page(path, "/api/v1/status")).watchers };
}

function page(socketPath: string, path: string): Promise<string> {
  return new Promise((resolve, reject) => {
    get({ socketPath, path }, async (response) => {
      let text = "";
      for await (const chunk of response) text += chunk;
      resolve(text);
    }).on("error", reject);
  });
}

test("a reader that has fallen behind is told so, and its stream ends", async () => {
  const { socket } = await stoppedReader();
  let text = "";
  socket.on("data", (chunk) => {
    text += chunk;
  });
  socket.resume();
  await until(() => text.includes('event: reset\ndata: {"reason":"lagged"}'));
});

test("a reader that reads nothing at all is dropped", async () => {
  const { watchers } = await stoppedReader();
  await until(async () => (await watchers()) === 0, 30_000);
});

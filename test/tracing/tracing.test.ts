// One trace from the caller's code through the client and the server to the disk, with a real SDK of OpenTelemetry.
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { credentials, Client as GrpcClient, Metadata } from "@grpc/grpc-js";
import { type Client, connect } from "@leasehold/client";
import { decode, encode, v1 } from "@leasehold/client/wire";
import * as api from "@opentelemetry/api";
import { AsyncLocalStorageContextManager } from "@opentelemetry/context-async-hooks";
import { W3CTraceContextPropagator } from "@opentelemetry/core";
import {
  BasicTracerProvider,
  InMemorySpanExporter,
  type ReadableSpan,
  SimpleSpanProcessor,
} from "@opentelemetry/sdk-trace-base";
import { afterAll, beforeAll, beforeEach, describe, expect, onTestFinished, test } from "vitest";
import { defaultConfig } from "../../src/server/config/schema.js";
import { type RunningServer, startServer } from "../../src/server/server.js";
import { root, ServerProcess, temporaryFolder, until } from "../e2e/support.js";

const exporter = new InMemorySpanExporter();

beforeAll(() => {
  api.trace.setGlobalTracerProvider(new BasicTracerProvider({ spanProcessors: [new SimpleSpanProcessor(exporter)] }));
  api.context.setGlobalContextManager(new AsyncLocalStorageContextManager().enable());
  api.propagation.setGlobalPropagator(new W3CTraceContextPropagator());
});

afterAll(() => {
  api.trace.disable();
  api.context.disable();
  api.propagation.disable();
});

beforeEach(() => exporter.reset());

const spans = (name: string): ReadableSpan[] => exporter.getFinishedSpans().filter((span) => span.name === name);

function only(name: string): ReadableSpan {
  const found = spans(name);
  expect(found.map((span) => span.name)).toEqual([name]);
  return found[0] as ReadableSpan;
}

const idOf = (span: ReadableSpan) => span.spanContext().spanId;
const parentOf = (span: ReadableSpan) => span.parentSpanContext?.spanId;
const ms = ([seconds, nanos]: readonly [number, number]) => seconds * 1_000 + nanos / 1e6;

async function start(): Promise<{ server: RunningServer; client: Client }> {
  const folder = await temporaryFolder();
  const server = await startServer(
    defaultConfig({ listen: "127.0.0.1:0", opsListen: "none", store: `level:${join(folder, "store")}` }),
  );
  onTestFinished(() => server.stop());
  return { server, client: await connectTo(server) };
}

async function connectTo(server: { readonly address: string }): Promise<Client> {
  const client = await connect(server.address, { openTelemetry: api });
  onTestFinished(() => client.close());
  return client;
}

describe("a session", () => {
  test("acquire, hold, what runs under the lock, release, and the server's part, in one trace", async () => {
    const { client } = await start();
    const tracer = api.trace.getTracer("application");
    await tracer.startActiveSpan("request", async (request) => {
      await client.withLock("orders/42", () => {
        tracer.startSpan("payment").end();
      });
      request.end();
    });
    await until(() => spans("leasehold.release").length === 1);

    const request = only("request");
    const acquire = only("leasehold.acquire");
    const hold = only("leasehold.hold");
    const served = only("leasehold.server.acquire");
    const commits = spans("leasehold.server.journal_commit");
    expect(parentOf(acquire)).toBe(idOf(request));
    expect(parentOf(hold)).toBe(idOf(request));
    expect(parentOf(only("payment"))).toBe(idOf(hold));
    expect(parentOf(only("leasehold.release"))).toBe(idOf(hold));
    expect(parentOf(served)).toBe(idOf(acquire));
    expect(commits.map(parentOf)).toEqual([idOf(served)]);
    expect(new Set(exporter.getFinishedSpans().map((span) => span.spanContext().traceId)).size).toBe(1);

    expect(acquire.attributes).toMatchObject({ "leasehold.lock": "orders/42", "leasehold.outcome": "granted" });
    expect(served.attributes["leasehold.token"]).toBe(acquire.attributes["leasehold.token"]);
    expect(hold.attributes["leasehold.end"]).toBe("released");
    const commit = commits[0] as ReadableSpan;
    expect(ms(commit.startTime)).toBeGreaterThanOrEqual(ms(served.startTime));
    expect(ms(commit.endTime)).toBeLessThanOrEqual(ms(served.endTime));
    expect(spans("leasehold.server.wait")).toEqual([]);
    expect(spans("leasehold.server.hold")).toEqual([]);
  });

  test("the time in the queue is a span; so is an acquire that finds the lock busy, and a lock that is lost", async () => {
    const { server, client } = await start();
    const other = await connectTo(server);
    const held = await client.acquire("a");
    const waiting = other.acquire("a", { wait: "20s" });
    await until(async () => (await client.describe("a")).waitersTotal === 1);
    expect((await other.tryAcquire("a")).acquired).toBe(false);
    await held.release();
    const next = await waiting;
    const [wait] = spans("leasehold.server.wait") as [ReadableSpan];
    const served = spans("leasehold.server.acquire").find((span) => idOf(span) === parentOf(wait)) as ReadableSpan;
    expect(served.attributes["leasehold.token"]).toBe(next.grant.token);
    expect(ms(wait.endTime) - ms(wait.startTime)).toBeGreaterThan(0);
    const outcomes = spans("leasehold.acquire").map((span) => span.attributes["leasehold.outcome"]);
    expect(outcomes.toSorted()).toEqual(["busy", "granted", "granted"]);
    const busy = spans("leasehold.server.acquire").find((span) => span.attributes["leasehold.outcome"] === "busy");
    expect(busy).toBeDefined();

    const lost = new Promise((resolve) => next.on("lost", resolve));
    const unary = new Unary(server.address);
    await unary.forceRelease("a");
    await lost;
    await next.release();
    const end = spans("leasehold.hold").find((span) => span.attributes["leasehold.end"] === "forced");
    expect(end?.status.code).toBe(api.SpanStatusCode.ERROR);
  });

  test("an acquire that fails says with what, and one without a sampled span makes none in the server", async () => {
    const { client } = await start();
    const abort = new AbortController();
    const held = await client.acquire("a");
    exporter.reset();
    const waiting = client.acquire("a", { signal: abort.signal }).catch(() => undefined);
    await until(async () => (await client.describe("a")).waitersTotal === 1);
    abort.abort();
    await waiting;
    expect(only("leasehold.acquire").attributes["leasehold.outcome"]).toBe("aborted");
    await until(() => spans("leasehold.server.acquire").length === 1);
    expect(only("leasehold.server.acquire").status.code).toBe(api.SpanStatusCode.ERROR);
    await held.release();
    exporter.reset();
    const unsampled = { traceId: "1".repeat(32), spanId: "2".repeat(16), traceFlags: 0 };
    const context = api.trace.setSpanContext(api.ROOT_CONTEXT, unsampled);
    await api.context.with(context, () => client.withLock("a", () => undefined));
    expect(spans("leasehold.server.acquire")).toEqual([]);
  });
});

/** As clients in other languages call. */
class Unary {
  readonly #client: GrpcClient;

  constructor(address: string) {
    this.#client = new GrpcClient(address, credentials.createInsecure(), { "grpc.enable_http_proxy": 0 });
    onTestFinished(() => this.#client.close());
  }

  #call(path: string, request: Buffer, traceparent = ""): Promise<Buffer> {
    const raw = (bytes: Buffer) => bytes;
    const headers = new Metadata();
    if (traceparent !== "") headers.set("traceparent", traceparent);
    return new Promise((resolve, reject) => {
      this.#client.makeUnaryRequest(`/leasehold.v1.${path}`, raw, raw, request, headers, (error, response) =>
        error ? reject(error) : resolve(response as Buffer),
      );
    });
  }

  forceRelease(name: string): Promise<Buffer> {
    return this.#call("AdminService/ForceRelease", encode(v1.ForceReleaseRequest, { name }));
  }

  async acquire(name: string, traceparent: string, inHeader: boolean): Promise<number> {
    const request = { name, mode: 1, traceparent: inHeader ? "" : traceparent };
    const sent = encode(v1.AcquireRequest, request);
    const bytes = await this.#call("LockService/Acquire", sent, inHeader ? traceparent : "");
    return decode(v1.AcquireResponse, bytes).grant?.token ?? 0;
  }

  release(name: string, token: number, traceparent: string): Promise<Buffer> {
    return this.#call("LockService/Release", encode(v1.ReleaseRequest, { name, token }), traceparent);
  }
}

const TRACE = "4bf92f3577b34da6a3ce929d0e0e4736";
const SPAN = "00f067aa0ba902b7";

describe("a unary caller", () => {
  test.each([
    ["the header", true],
    ["the message", false],
  ])("gives its context in %s; the hold and the release are spans of the server's", async (_, inHeader) => {
    const { server } = await start();
    const unary = new Unary(server.address);
    const traceparent = `00-${TRACE}-${SPAN}-01`;
    const token = await unary.acquire("a", traceparent, inHeader);
    await unary.release("a", token, traceparent);
    await until(() => spans("leasehold.server.release").length === 1);
    const acquire = only("leasehold.server.acquire");
    expect([acquire.spanContext().traceId, parentOf(acquire)]).toEqual([TRACE, SPAN]);
    const hold = only("leasehold.server.hold");
    expect(parentOf(hold)).toBe(idOf(acquire));
    expect(hold.attributes).toMatchObject({ "leasehold.token": token, "leasehold.end": "released" });
    expect(parentOf(only("leasehold.server.release"))).toBe(SPAN);
  });

  test.each([
    "garbage",
    `00-${TRACE}-${SPAN}`,
    `00-${"0".repeat(32)}-${SPAN}-01`,
    `00-${TRACE}-${"0".repeat(16)}-01`,
    `ff-${TRACE}-${SPAN}-01`,
    `00-${TRACE}-${SPAN}-00`,
    `00-${TRACE}-${SPAN}-01x`,
    "00-".repeat(10_000),
  ])("whose context is no sampled one is served like any other: %.60s", async (traceparent) => {
    const { server } = await start();
    const unary = new Unary(server.address);
    expect(await unary.acquire("a", traceparent, false)).toBeGreaterThan(0);
    expect(exporter.getFinishedSpans()).toEqual([]);
  });
});

test("an operator has a server traced without touching it", async () => {
  const folder = await temporaryFolder();
  const file = join(folder, "spans.jsonl");
  const env = {
    ...process.env,
    NODE_OPTIONS: `--import=${join(root, "test/tracing/telemetry.mjs")}`,
    SPANS_FILE: file,
  };
  const server = await ServerProcess.startIn(env, "memory:");
  const client = await connectTo(server);
  await client.withLock("a", () => undefined);
  const written = async () => (await readFile(file, "utf8").catch(() => "")).trim().split("\n");
  await until(async () => (await written()).some((line) => line.includes("leasehold.server.acquire")));
  const lines = (await written()).map((line) => JSON.parse(line) as Record<string, unknown>);
  const acquire = only("leasehold.acquire");
  expect(lines.find(({ name }) => name === "leasehold.server.acquire")).toMatchObject({
    traceId: acquire.spanContext().traceId,
    parent: idOf(acquire),
    "leasehold.lock": "a",
    "leasehold.outcome": "grant",
  });
});

/** Clocks in the headers of real transports: what one process injects, another one extracts, as its driver delivers it. */
import { once } from "node:events";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import * as grpc from "@grpc/grpc-js";
import { type HeaderCarrier, LeaseholdError, type ReceivedHeaders, VectorClock } from "@leasehold/client";
import type { Message } from "@platformatic/kafka";
import amqp from "amqplib";
import { Kafka, logLevel } from "kafkajs";
import { describe, expect, it, onTestFinished } from "vitest";
import { LamportClock } from "../../src/client/lamport.js";
import { startKafka } from "../services/kafka.mjs";
import { startRabbitmq } from "../services/rabbitmq.mjs";
import { describeWithServices } from "../services/vitest.js";

/** The clocks of a process. */
class Process {
  readonly lamport = new LamportClock(() => Promise.reject(new Error("no server")));
  readonly vector: VectorClock;

  constructor(name: string, past: number) {
    this.vector = new VectorClock(name);
    this.lamport.observe(past);
    this.vector.tick();
  }

  send<H extends HeaderCarrier>(headers: H): H {
    return this.lamport.inject(this.vector.inject(headers));
  }

  receive(headers: ReceivedHeaders): { lamport: number | undefined; vector: unknown } {
    return { lamport: this.lamport.extract(headers), vector: this.vector.extract(headers) };
  }
}

/** What a callback is going to be given. */
function arrival<T>() {
  let resolve: (value: T) => void = () => undefined;
  const promise = new Promise<T>((settle) => {
    resolve = settle;
  });
  return { promise, resolve };
}

const pair = () => ({ sender: new Process("sender", 40), receiver: new Process("receiver", 7) });
/** The sender had one event and sent with its second, at 42; the receiver had one event before. */
const RECEIVED = { lamport: 43, vector: { sender: 2, receiver: 2 } };

describe("clocks in gRPC", () => {
  const identity = (bytes: Buffer) => bytes;
  const method = {
    path: "/test.Echo/Call",
    requestStream: false,
    responseStream: false,
    requestSerialize: identity,
    requestDeserialize: identity,
    responseSerialize: identity,
    responseDeserialize: identity,
  } as const;

  it("travel in metadata to the server, and back in its trailers", async () => {
    const { sender, receiver } = pair();
    const received = arrival<unknown>();
    const server = new grpc.Server();
    server.addService(
      { call: method },
      {
        call: (call: grpc.ServerUnaryCall<Buffer, Buffer>, answer: grpc.sendUnaryData<Buffer>) => {
          received.resolve(receiver.receive(call.metadata));
          answer(null, Buffer.from("ok"), receiver.send(new grpc.Metadata()));
        },
      },
    );
    const credentials = grpc.ServerCredentials.createInsecure();
    const port = await new Promise<number>((resolve, reject) => {
      server.bindAsync("127.0.0.1:0", credentials, (error, bound) => (error ? reject(error) : resolve(bound)));
    });
    const Client = grpc.makeGenericClientConstructor({ call: method }, "Echo");
    const client = new Client(`127.0.0.1:${port}`, grpc.credentials.createInsecure());
    onTestFinished(() => {
      client.close();
      server.forceShutdown();
    });
    const trailers = new Promise<grpc.Metadata>((resolve) => {
      const call = client.makeUnaryRequest<Buffer, Buffer>(
        method.path,
        identity,
        identity,
        Buffer.from("hi"),
        sender.send(new grpc.Metadata()),
        () => undefined,
      );
      call.on("status", ({ metadata }) => resolve(metadata));
    });
    expect(await received.promise).toEqual(RECEIVED);
    expect(sender.receive(await trailers)).toEqual({ lamport: 45, vector: { sender: 3, receiver: 3 } });
  });

  it("are refused when they are there twice, or are no text", () => {
    const { receiver } = pair();
    const twice = new grpc.Metadata();
    twice.add("lamport-timestamp", "5");
    twice.add("lamport-timestamp", "6");
    expect(() => receiver.receive(twice)).toThrow(LeaseholdError);
    expect(receiver.lamport.now()).toBe(8);
    expect(receiver.receive(new grpc.Metadata())).toEqual({ lamport: undefined, vector: undefined });
  });
});

describe("clocks in HTTP", () => {
  it("travel in the headers of node:http and of fetch", async () => {
    const { sender, receiver } = pair();
    const received = arrival<unknown>();
    const server = createServer((request, response) => {
      received.resolve(receiver.receive(request.headers));
      response.writeHead(200, receiver.send({ "content-type": "text/plain" })).end("ok");
    });
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    onTestFinished(() => void server.close());
    const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/`;
    const response = await fetch(url, { headers: sender.send(new Headers()) });
    expect(await received.promise).toEqual(RECEIVED);
    expect(sender.receive(response.headers)).toEqual({ lamport: 45, vector: { sender: 3, receiver: 3 } });
  });
});

describeWithServices("clocks in RabbitMQ", ["rabbitmq"], () => {
  it("travel in the headers of messages", async () => {
    const rabbitmq = await startRabbitmq();
    const connection = await amqp.connect(rabbitmq.url);
    onTestFinished(async () => {
      await connection.close();
      await rabbitmq.stop();
    });
    const { sender, receiver } = pair();
    const channel = await connection.createChannel();
    const { queue } = await channel.assertQueue("", { exclusive: true });
    const received = arrival<ReceivedHeaders>();
    await channel.consume(queue, (message) => message && received.resolve(message.properties.headers));
    channel.sendToQueue(queue, Buffer.from("hi"), { headers: sender.send({ tenant: 7 }) });
    expect(receiver.receive(await received.promise)).toEqual(RECEIVED);
  });

  it("may be numbers and bytes, as other publishers send them", async () => {
    const rabbitmq = await startRabbitmq();
    const connection = await amqp.connect(rabbitmq.url);
    onTestFinished(async () => {
      await connection.close();
      await rabbitmq.stop();
    });
    const channel = await connection.createChannel();
    const { queue } = await channel.assertQueue("", { exclusive: true });
    const received = arrival<ReceivedHeaders>();
    await channel.consume(queue, (message) => message && received.resolve(message.properties.headers));
    const headers = { "lamport-timestamp": 42, "vector-clock": Buffer.from("sender=2") };
    channel.sendToQueue(queue, Buffer.from("hi"), { headers });
    expect(pair().receiver.receive(await received.promise)).toEqual(RECEIVED);
  });
});

describeWithServices("clocks in Kafka", ["kafka"], () => {
  it("travel in the headers of messages, from kafkajs to kafkajs", async () => {
    const kafka = await startKafka();
    const client = new Kafka({ brokers: kafka.brokers, logLevel: logLevel.NOTHING });
    const [producer, consumer] = [client.producer(), client.consumer({ groupId: "clocks" })];
    onTestFinished(async () => {
      await producer.disconnect();
      await consumer.disconnect();
      await kafka.stop();
    });
    const { sender, receiver } = pair();
    await producer.connect();
    await producer.send({ topic: "clocks", messages: [{ value: "hi", headers: sender.send({ tenant: "7" }) }] });
    await consumer.connect();
    await consumer.subscribe({ topic: "clocks", fromBeginning: true });
    const received = arrival<ReceivedHeaders>();
    await consumer.run({ eachMessage: async ({ message }) => received.resolve(message.headers) });
    const headers = await received.promise;
    expect(Buffer.isBuffer((headers as Record<string, unknown>)["vector-clock"])).toBe(true); // not what was sent
    expect(receiver.receive(headers)).toEqual(RECEIVED);
  });

  // Its Consumer cannot be had here: the mock broker's versions of the protocol are too old for it.
  it("are read from maps of buffers, as @platformatic/kafka delivers them", () => {
    const { sender, receiver } = pair();
    const sent = sender.send(new Map([["tenant", "7"]]));
    const headers: Message["headers"] = new Map(
      [...sent].map(([key, value]) => [Buffer.from(key), Buffer.from(value)]),
    );
    expect(receiver.receive(headers)).toEqual(RECEIVED);
  });
});

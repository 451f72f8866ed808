/** RabbitMQ's messages under faults: real processes killed and stopped, connections cut, the broker killed. */
import { type ChildProcess, spawn } from "node:child_process";
import { randomUUID } from "node:crypto";
import { once } from "node:events";
import { type AddressInfo, createServer, connect as dial, type Socket } from "node:net";
import { fileURLToPath } from "node:url";
import { connect } from "@leasehold/client";
import { MemoryHighWater, type RunningConsumer, rabbitmqConsumer, rabbitmqProducer } from "@leasehold/fence/rabbitmq";
import type { ChannelModel, ConfirmChannel, ConsumeMessage } from "amqplib";
import pg from "pg";
import { afterAll, beforeAll, expect, onTestFinished, test } from "vitest";
import { startLeasehold } from "../services/leasehold.mjs";
import { startPostgres } from "../services/postgres.mjs";
import { startRabbitmq } from "../services/rabbitmq.mjs";
import { describeWithServices } from "../services/vitest.js";
import { startHolder } from "./holder.js";
import { exclusive } from "./locks.js";
import { Registers, Verdicts, verdictService } from "./messages-support.js";
import { connectTo } from "./rabbitmq-subject.js";

const path = (name: string) => fileURLToPath(new URL(`./holders/${name}`, import.meta.url));
const DEADLINE_MS = 30_000;
const poll = { timeout: DEADLINE_MS, interval: 10 };

/** Passes on what a client and a server say, until it is told not to. */
async function startProxy(port: number) {
  const pairs = new Set<[Socket, Socket]>();
  let answers = true;
  const server = createServer((client) => {
    const upstream = dial(port, "127.0.0.1");
    pairs.add([client, upstream]);
    client.on("data", (data) => upstream.write(data));
    upstream.on("data", (data) => answers && client.write(data));
    for (const [one, other] of [
      [client, upstream],
      [upstream, client],
    ] as const) {
      one.on("error", () => {}).on("close", () => other.destroy());
    }
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const cut = () => {
    for (const [client, upstream] of pairs) for (const socket of [client, upstream]) socket.destroy();
    pairs.clear();
    answers = true;
  };
  onTestFinished(() => {
    cut();
    server.close();
  });
  return {
    url: `amqp://guest:guest@127.0.0.1:${(server.address() as AddressInfo).port}`,
    /** What the server says from now on is lost. */
    swallowAnswers: () => {
      answers = false;
    },
    cut,
  };
}

describeWithServices("RabbitMQ under faults", ["rabbitmq", "postgres"], () => {
  let rabbitmq: Awaited<ReturnType<typeof startRabbitmq>>;
  let postgres: Awaited<ReturnType<typeof startPostgres>>;
  let pool: pg.Pool;

  beforeAll(async () => {
    [rabbitmq, postgres] = await Promise.all([startRabbitmq(), startPostgres()]);
    pool = new pg.Pool({ connectionString: postgres.url });
    await new Registers(pool, "any").migrate();
  });
  afterAll(async () => {
    await pool?.end();
    await Promise.all([rabbitmq?.stop(), postgres?.stop()]);
  });

  async function connection(): Promise<ChannelModel> {
    const connected = await connectTo(rabbitmq.url);
    onTestFinished(() => connected.close().catch(() => {}));
    return connected;
  }

  /** A new queue. */
  async function declare(from: ChannelModel): Promise<string> {
    const queue = `faults-${randomUUID()}`;
    const channel = await from.createChannel();
    await channel.assertQueue(queue, { durable: true });
    await channel.close();
    return queue;
  }

  /** Consumes as soon as the broker has noticed that the exclusive consumer before has gone. */
  async function takeOver(
    from: ChannelModel,
    queue: string,
    handler: (message: ConsumeMessage, context: Parameters<Registers["handle"]>[1]) => Promise<void>,
    options: Parameters<typeof rabbitmqConsumer<ConsumeMessage, Parameters<Registers["marks"]["save"]>[2]>>[3],
  ): Promise<RunningConsumer> {
    const deadlineMs = performance.now() + DEADLINE_MS;
    for (;;) {
      const channel = await from.createChannel();
      try {
        return await rabbitmqConsumer(channel, queue, handler, options);
      } catch (error) {
        // 403: somebody consumes it exclusively.
        if ((error as { code?: number }).code !== 403 || performance.now() > deadlineMs) throw error;
      }
    }
  }

  function startConsumer(queue: string, marks: "postgres" | "memory"): ChildProcess {
    const job = JSON.stringify({ url: rabbitmq.url, database: postgres.url, queue, marks });
    const child = spawn(process.execPath, [path("rabbitmq-consumer.mjs"), job], {
      stdio: ["ignore", "inherit", "inherit", "ipc"],
    });
    onTestFinished(() => void child.kill("SIGKILL"));
    return child;
  }

  /**
   * A consumer process is killed between its commit and its ack. Returns how often the effect is there, and what was
   * told.
   */
  async function killedBeforeAck(marks: "postgres" | "memory") {
    const connected = await connection();
    const queue = await declare(connected);
    const producer = rabbitmqProducer(await connected.createConfirmChannel(), { queue });
    const child = startConsumer(queue, marks);
    await producer.under(exclusive("orders/1", 5), (publisher) => publisher.publish({ content: "paid" }));
    const [said] = (await once(child, "message", { signal: AbortSignal.timeout(DEADLINE_MS) })) as [unknown];
    expect(said).toEqual({ committed: 1 });
    const gone = once(child, "exit");
    child.kill("SIGKILL");
    await gone;

    const verdicts = new Verdicts();
    const registers = new Registers(pool, queue);
    const successor = await takeOver(
      connected,
      queue,
      (message, context) => registers.handle(message.content.toString(), context),
      {
        highWater: marks === "memory" ? new MemoryHighWater() : registers.marks,
        onGap: "skip",
        report: verdicts.report,
      },
    );
    await expect
      .poll(() => verdicts.reports.filter((one) => "sequence" in one && one.sequence === 1).length, poll)
      .toBe(1);
    await successor.close();
    return { writes: (await registers.row("orders/1"))?.writes, verdicts };
  }

  test("a consumer that is killed between its commit and its ack has its effect once", async () => {
    const { writes, verdicts } = await killedBeforeAck("postgres");
    expect(writes).toBe(1);
    expect(verdicts.of("duplicate")).toContainEqual({
      ...{ is: "duplicate", key: "orders/1", token: 5, sequence: 1, applied: false },
    });
  });

  test("…and twice when the marks died with it: that is what the record is for", async () => {
    expect((await killedBeforeAck("memory")).writes).toBe(2);
  });

  test("a message whose confirm was lost is sent again over a new connection, and handled once", async () => {
    const connected = await connection();
    const queue = await declare(connected);
    const verdicts = new Verdicts();
    const contents: string[] = [];
    const consumer = await rabbitmqConsumer(
      await connected.createChannel(),
      queue,
      (message) => contents.push(message.content.toString()),
      { highWater: new MemoryHighWater(), onGap: "stop", report: verdicts.report },
    );

    const proxy = await startProxy(rabbitmq.port);
    let channel: ConfirmChannel | undefined = await (await connectTo(proxy.url)).createConfirmChannel();
    const current = () => {
      if (channel) return channel;
      throw new Error("there is no channel at the moment");
    };
    const producer = rabbitmqProducer(current, { queue, attemptsMax: 50, retryMs: 10 });
    const publisher = await producer.open(exclusive("orders/1", 5));
    await publisher.publish({ content: "created" });

    proxy.swallowAnswers();
    const published = publisher.publish({ content: "paid" });
    await verdicts.has("handled", 2); // the broker has it, and its confirm has gone nowhere
    channel = undefined;
    proxy.cut();
    channel = await (await connectTo(proxy.url)).createConfirmChannel();
    expect((await published).sequence).toBe(2);
    await publisher.publish({ content: "shipped" });
    await verdicts.has("handled", 3);
    expect(contents).toEqual(["created", "paid", "shipped"]);
    expect(verdicts.of("duplicate").map(({ sequence }) => sequence)).toEqual([2]);
    expect(verdicts.of("gap")).toEqual([]);
    await consumer.close();
  });

  test("when the broker is killed and comes back, everything is handled once and in order", async () => {
    const KEYS = ["a", "b", "c"];
    const EACH = 100;
    const highWater = new MemoryHighWater(); // this process lives on, and with it the record
    const verdicts = new Verdicts();
    const handled = new Map<string, string[]>(KEYS.map((key) => [key, []]));
    let connected = await connectTo(rabbitmq.url);
    const queue = await declare(connected);
    await rabbitmq.ctl("eval", "mnesia:sync_log()."); // the queue: its record is written with a delay otherwise
    const consume = async () =>
      rabbitmqConsumer(
        await connected.createChannel(),
        queue,
        async (message: ConsumeMessage, context) => void handled.get(context.key)?.push(message.content.toString()),
        { highWater, onGap: "stop", report: verdicts.report },
      );
    const first = await consume();
    const firstEnd = first.ended.catch((error: unknown) => error);

    let channel: ConfirmChannel | undefined = await connected.createConfirmChannel();
    channel.on("error", () => {});
    const current = () => {
      if (channel) return channel;
      throw new Error("there is no channel at the moment");
    };
    const producer = rabbitmqProducer(current, { queue, attemptsMax: 1_000, retryMs: 5 });
    const publishing = KEYS.map((key, i) =>
      producer.under(exclusive(key, 10 + i), async (publisher) => {
        const all: Promise<unknown>[] = [];
        for (let n = 1; n <= EACH; n++) {
          all.push(publisher.publish({ content: `${n}` }));
          if (n % 10 === 0) await all[n - 10]; // some unconfirmed at any time
        }
        await Promise.all(all);
      }),
    );
    await verdicts.has("handled", 60);
    channel = undefined;
    await rabbitmq.kill9();
    expect(await firstEnd).toMatchObject({ code: "UNREACHABLE" });
    await rabbitmq.restart();
    connected = await connection();
    const second = await consume();
    channel = await connected.createConfirmChannel();
    await Promise.all(publishing);
    await verdicts.has("handled", KEYS.length * EACH);
    await second.close();
    for (const key of KEYS) expect(handled.get(key), key).toEqual(Array.from({ length: EACH }, (_, i) => `${i + 1}`));
    expect(verdicts.of("gap")).toEqual([]);
  });

  test("a producer that stalls with a message in hand, and loses its lock, is dropped when it goes on", async () => {
    const connected = await connection();
    const queue = await declare(connected);
    const leasehold = await startLeasehold();
    onTestFinished(() => leasehold.stop());
    const verdicts = new Verdicts();
    const service = await verdictService(verdicts);
    onTestFinished(() => {
      service.server.closeAllConnections();
      service.server.close();
    });
    const registers = new Registers(pool, queue);
    const consumer = await rabbitmqConsumer(
      await connected.createChannel(),
      queue,
      (message, context) => registers.handle(message.content.toString(), context),
      { highWater: registers.marks, onGap: "stop", report: verdicts.report },
    );

    const name = "orders/42";
    const config = { leasehold: leasehold.address, ttl: "2s", url: rabbitmq.url, queue, verdicts: service.url };
    const stalled = await startHolder(path("rabbitmq-locked.mjs"), config, name, 0, DEADLINE_MS, "paid");
    stalled.stop();

    const client = await connect(leasehold.address);
    onTestFinished(() => client.close());
    const producer = rabbitmqProducer(await connected.createConfirmChannel(), { queue });
    const told = await client.withLock(name, { wait: "20s" }, (lock) => {
      const next = verdicts.next(name, lock.token, false);
      return producer.under(lock, (publisher) => publisher.publish({ content: "cancelled" })).then(() => next);
    });
    expect(told).toMatchObject({ is: "handled", sequence: 1 });

    expect(await stalled.goOn()).toBe("STALE_TOKEN");
    expect(await registers.read(name)).toBe("cancelled");
    const [dropped] = verdicts.of("stale");
    expect(dropped).toMatchObject({ key: name, sequence: 1, applied: false });
    expect((dropped as { token: number }).token).toBeLessThan((await consumer.inspect(name)).floor);
    await consumer.close();
  });
});

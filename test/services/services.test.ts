/** The services themselves: they start, serve, survive `kill -9`, and leave nothing behind, whatever ends their parent. */
import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { connect as tcpConnect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import amqp from "amqplib";
import { Redis } from "ioredis";
import { Kafka, logLevel } from "kafkajs";
import mysql from "mysql2/promise";
import pg from "pg";
import { describe, expect, onTestFinished, test } from "vitest";
import { startEtcd } from "./etcd.mjs";
import { startKafka } from "./kafka.mjs";
import { startLeasehold } from "./leasehold.mjs";
import { startMariadb } from "./mariadb.mjs";
import type { ServiceName } from "./packages.mjs";
import { startPostgres } from "./postgres.mjs";
import { isAlive, until } from "./processes.mjs";
import { startRabbitmq } from "./rabbitmq.mjs";
import { startRedis } from "./redis.mjs";
import { describeWithServices } from "./vitest.js";

interface Service {
  readonly pid: number;
  stop(): Promise<void>;
}

/** Ends the service when the test is over, if the test has not. */
async function started<T extends Service>(start: Promise<T>): Promise<T> {
  const service = await start;
  onTestFinished(() => service.stop());
  return service;
}

function refused(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = tcpConnect(port, "127.0.0.1", () => {
      socket.destroy();
      resolve(false);
    });
    socket.on("error", (error) => resolve((error as NodeJS.ErrnoException).code === "ECONNREFUSED"));
  });
}

async function expectGone(service: Service, port: number): Promise<void> {
  const { pid } = service;
  expect(isAlive(pid)).toBe(true);
  expect(await refused(port)).toBe(false);
  await service.stop();
  expect(isAlive(pid)).toBe(false);
  expect(await refused(port)).toBe(true);
  await service.stop(); // once more changes nothing
}

describeWithServices("PostgreSQL", ["postgres"], () => {
  async function query(url: string, sql: string): Promise<unknown[]> {
    const client = new pg.Client(url);
    client.on("error", () => undefined); // killed on purpose
    await client.connect();
    try {
      return (await client.query({ text: sql, rowMode: "array" })).rows.flat();
    } finally {
      await client.end();
    }
  }

  test("keeps what was committed over kill -9, and is gone after stop()", async () => {
    const postgres = await started(startPostgres({ settings: { work_mem: "5MB" } }));
    expect(await query(postgres.url, "show fsync")).toEqual(["on"]);
    expect(await query(postgres.url, "show work_mem")).toEqual(["5MB"]);
    await query(postgres.url, "create table t as select 7 as n");
    const before = postgres.pid;
    await postgres.kill9();
    expect(await refused(postgres.port)).toBe(true);
    await postgres.restart();
    expect(postgres.pid).not.toBe(before);
    expect(await query(postgres.url, "select n from t")).toEqual([7]);
    expect(await postgres.psql("select n, 'x' from t")).toBe("7|x");
    await expect(postgres.psql("select nonsense")).rejects.toThrow("nonsense");
    await expectGone(postgres, postgres.port);
  });

  test("kill -9 ends the processes of its connections too", async () => {
    const postgres = await started(startPostgres());
    const client = new pg.Client(postgres.url);
    client.on("error", () => undefined);
    const ended = new Promise((resolve) => client.once("end", resolve));
    await client.connect();
    const { rows } = await client.query("select pg_backend_pid() as pid");
    const busy = client.query("select count(*) from generate_series(1, 1e12)").catch((error: Error) => error);
    await postgres.kill9();
    expect(isAlive(rows[0].pid)).toBe(false);
    expect(await busy).toBeInstanceOf(Error);
    await ended;
  });

  test("its replica follows, except while it is paused", async () => {
    const postgres = await started(startPostgres({ replica: true }));
    const replica = postgres.replica!;
    const rows = () => replica.psql("select count(*) from t").catch(() => "no table");
    await postgres.psql("create table t (n int)");
    await until(async () => (await rows()) === "0", { what: "the table on the replica" });
    await replica.pause();
    const end = await postgres.psql("insert into t values (1); select pg_current_wal_lsn()");
    const received = `select pg_last_wal_receive_lsn() >= '${end}'`;
    await until(async () => (await replica.psql(received)) === "t", { what: "the row received" });
    expect(await rows()).toBe("0");
    await replica.resume();
    await until(async () => (await rows()) === "1", { what: "the row on the replica" });
    expect(await query(replica.url, "select pg_is_in_recovery()")).toEqual([true]);
    await postgres.stop();
    expect(await refused(replica.port)).toBe(true);
  });
});

describeWithServices("MariaDB", ["mariadb"], () => {
  async function query(url: string, sql: string): Promise<unknown> {
    const connection = await mysql.createConnection({ uri: url, rowsAsArray: true });
    const [rows] = await connection.query(sql);
    await connection.end();
    return rows;
  }

  test("keeps what was committed over kill -9, and is gone after stop()", async () => {
    const mariadb = await started(startMariadb());
    await query(mariadb.url, "create table t (n int) engine = innodb");
    await query(mariadb.url, "insert into t values (7)");
    await mariadb.kill9();
    expect(await refused(mariadb.port)).toBe(true);
    await mariadb.restart();
    expect(await query(mariadb.url, "select n from t")).toEqual([[7]]);
    await expectGone(mariadb, mariadb.port);
  });
});

describeWithServices("Redis", ["redis"], () => {
  function client(url: string, options = {}): Redis {
    const redis = new Redis(url, options);
    redis.on("error", () => undefined); // killed on purpose
    onTestFinished(() => redis.disconnect());
    return redis;
  }

  test("forgets over kill -9, unless it is append-only", async () => {
    for (const appendonly of [false, true]) {
      const redis = await started(startRedis({ appendonly, settings: { "maxmemory-policy": "noeviction" } }));
      const commands = client(redis.url);
      expect(await commands.set("k", "v")).toBe("OK");
      if (appendonly) expect(await commands.config("GET", "appendfsync")).toEqual(["appendfsync", "always"]);
      await redis.kill9();
      expect(await refused(redis.port)).toBe(true);
      await redis.restart();
      expect(await client(redis.url).get("k")).toBe(appendonly ? "v" : null);
      await expectGone(redis, redis.port);
    }
  });

  test("its replica is in sync, and answers nothing while it is paused", async () => {
    const redis = await started(startRedis({ replica: true }));
    const replica = redis.replica!;
    const commands = client(redis.url);
    await commands.set("k", "v");
    expect(await commands.wait(1, 10_000)).toBe(1);
    expect(await client(replica.url).get("k")).toBe("v");
    replica.pause();
    await commands.set("k", "w");
    expect(await commands.wait(1, 50)).toBe(0);
    replica.resume();
    expect(await commands.wait(1, 10_000)).toBe(1);
    await replica.kill9();
    await replica.restart();
    await redis.stop();
    expect(await refused(replica.port)).toBe(true);
  });

  test("as a cluster it owns all slots, also after kill -9", async () => {
    const redis = await started(startRedis({ cluster: true }));
    await redis.kill9();
    await redis.restart();
    const commands = client(redis.url);
    expect(await commands.set("k", "v")).toBe("OK");
    const slots = await commands.cluster("SLOTS");
    expect(slots.map(([first, last, node]) => [first, last, node?.[0], node?.[1]])).toEqual([
      [0, 16_383, "127.0.0.1", redis.port],
    ]);
    await expect(commands.mget("a", "b")).rejects.toThrow("CROSSSLOT");
  });
});

describeWithServices("RabbitMQ", ["rabbitmq"], () => {
  test("keeps a persistent message over kill -9, and is gone after stop()", async () => {
    const rabbitmq = await started(startRabbitmq());
    const connection = await amqp.connect(rabbitmq.url);
    connection.on("error", () => undefined); // killed on purpose
    const channel = await connection.createConfirmChannel();
    await channel.assertQueue("q", { durable: true });
    channel.sendToQueue("q", Buffer.from("hello"), { persistent: true });
    await channel.waitForConfirms();
    expect(await rabbitmq.ctl("list_queues", "name", "messages")).toContain("q\t1");
    await rabbitmq.kill9();
    await rabbitmq.restart();
    const again = await amqp.connect(rabbitmq.url);
    const message = await (await again.createChannel()).get("q", { noAck: true });
    expect(message ? message.content.toString() : "no message").toBe("hello");
    await again.close();
    const { epmdPid } = rabbitmq;
    expect(isAlive(epmdPid)).toBe(true);
    await expectGone(rabbitmq, rabbitmq.port);
    expect(isAlive(epmdPid)).toBe(false);
  });
});

describeWithServices("etcd", ["etcd"], () => {
  async function call(url: string, method: string, request: Record<string, string>): Promise<unknown> {
    const body = JSON.stringify(Object.fromEntries(Object.entries(request).map(([key, text]) => [key, btoa(text)])));
    return (await fetch(`${url}/v3/kv/${method}`, { method: "POST", body })).json();
  }

  test("keeps what was written over kill -9, and is gone after stop()", async () => {
    const etcd = await started(startEtcd());
    await call(etcd.url, "put", { key: "k", value: "v" });
    await etcd.kill9();
    expect(await refused(etcd.port)).toBe(true);
    await etcd.restart();
    expect(await call(etcd.url, "range", { key: "k" })).toMatchObject({ kvs: [{ value: btoa("v") }] });
    await expectGone(etcd, etcd.port);
  });
});

describeWithServices("Kafka's mock broker", ["kafka"], () => {
  test("gives a consumer group what a producer sent, with headers, and keeps its offsets", async () => {
    const broker = await started(startKafka());
    const kafka = new Kafka({ brokers: broker.brokers, logLevel: logLevel.NOTHING });
    const producer = kafka.producer();
    await producer.connect();
    await producer.send({
      topic: "orders",
      messages: [{ key: "k", value: "v", headers: { token: "7" }, partition: 2 }],
    });
    // maxWaitTimeInMs: disconnect() waits for the fetch in flight.
    const consumer = kafka.consumer({ groupId: "g", maxWaitTimeInMs: 100 });
    await consumer.connect();
    await consumer.subscribe({ topic: "orders", fromBeginning: true });
    const seen = await new Promise<unknown[]>((resolve, reject) => {
      const eachMessage = async ({ partition, message }: { partition: number; message: Parameters<typeof text>[0] }) =>
        resolve([partition, ...text(message)]);
      consumer.run({ autoCommit: false, eachMessage }).catch(reject);
    });
    expect(seen).toEqual([2, "0", "k", "v", "7"]);
    await consumer.commitOffsets([{ topic: "orders", partition: 2, offset: "1" }]);
    const admin = kafka.admin();
    const [offsets] = await admin.fetchOffsets({ groupId: "g", topics: ["orders"] });
    expect(offsets?.partitions).toContainEqual({ partition: 2, offset: "1", metadata: null });
    await Promise.all([consumer.disconnect(), producer.disconnect(), admin.disconnect()]);
    await expectGone(broker, Number(broker.brokers[0]?.split(":")[1]));
  });

  function text(message: { offset: string; key: Buffer | null; value: Buffer | null; headers?: object | undefined }) {
    const headers = message.headers as Record<string, Buffer> | undefined;
    return [message.offset, String(message.key), String(message.value), String(headers?.token)];
  }
});

describe("Leasehold", () => {
  test("serves at the same addresses after kill -9, and is gone after stop()", async () => {
    const leasehold = await started(startLeasehold());
    const ready = async () => (await fetch(`http://${leasehold.opsAddress}/readyz`)).status;
    expect(await ready()).toBe(200);
    await leasehold.kill9();
    await expect(ready()).rejects.toThrow();
    await leasehold.restart();
    expect(await ready()).toBe(200);
    await expectGone(leasehold, Number(leasehold.address.split(":")[1]));
  });
});

/** Everything whose folder is `folder`, by its command line: also grandchildren. */
function processesIn(folder: string): string[] {
  const list = execFileSync("ps", ["-A", "-ww", "-o", "pid=,args="], { encoding: "utf8" });
  return list.split("\n").filter((line) => line.includes(folder));
}

const child = fileURLToPath(new URL("child.mjs", import.meta.url));

async function parentOf(service: string, ...more: string[]) {
  const folder = mkdtempSync(join(tmpdir(), "parent-"));
  execFileSync("chmod", ["755", folder]); // PostgreSQL runs as another user
  onTestFinished(() => rmSync(folder, { recursive: true, force: true }));
  const parent = spawn(process.execPath, [child, service, ...more], {
    env: { ...process.env, TMPDIR: folder },
    stdio: ["ignore", "pipe", "inherit"],
  });
  onTestFinished(() => void parent.kill("SIGKILL"));
  const [line] = await once(createInterface({ input: parent.stdout }), "line");
  return { parent, folder, pid: (JSON.parse(line) as { pid: number }).pid };
}

async function expectNothingLeft(folder: string, pid: number): Promise<void> {
  await until(() => !isAlive(pid), { what: "the end of the service", limitMs: 20_000 });
  await until(() => processesIn(folder).length === 0, { what: `nobody in ${folder}`, limitMs: 20_000 });
  await until(() => readdirSync(folder).length === 0, { what: `nothing in ${folder}`, limitMs: 20_000 });
}

const services: ServiceName[] = ["postgres", "mariadb", "redis", "rabbitmq", "etcd", "kafka"];

describeWithServices("when the process that started it", services, () => {
  test.each([...services, "leasehold", "stubborn"])(
    "is killed by SIGKILL, %s ends, and leaves nothing",
    async (service) => {
      const { parent, folder, pid } = await parentOf(service, "stay");
      expect(isAlive(pid)).toBe(true);
      expect(readdirSync(folder)).toHaveLength(1);
      parent.kill("SIGKILL");
      await expectNothingLeft(folder, pid);
    },
  );

  test("ends without stop(), it does not wait for the service, which ends too", async () => {
    const { parent, folder, pid } = await parentOf("redis");
    if (parent.exitCode === null) await once(parent, "exit");
    expect(parent.exitCode).toBe(0);
    await expectNothingLeft(folder, pid);
  });
});

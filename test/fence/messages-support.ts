/**
 * What the tests of messages share: registers in PostgreSQL that a consumer writes, and what it told of each message.
 */
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import type { Fenced, Hold } from "@leasehold/fence";
import {
  type Publisher,
  postgresHighWater,
  type Report,
  readStamp,
  type StampedProducer,
} from "@leasehold/fence/rabbitmq";
import type pg from "pg";
import { stale } from "../../src/fence/errors.js";
import { holdOf, holdsOf } from "../../src/fence/hold.js";
import type { MessageContext } from "../../src/fence/messages/consumer-options.js";
import type { MarkQueries } from "../../src/fence/messages/postgres-high-water.js";
import { until } from "../services/processes.mjs";

/** How long a message may take through broker, consumer and database on a busy machine. */
const VERDICT_MS = 30_000;

/** What a consumer tells, by key and token, for those who wait for it. */
export class Verdicts {
  readonly reports: Report[] = [];
  readonly #waiting = new Map<string, ((report: Report) => void)[]>();

  readonly report = (report: Report): void => {
    this.reports.push(report);
    if (!("sequence" in report)) return;
    const name = this.#name(report.key, report.token, report.sequence === 0);
    for (const resolve of this.#waiting.get(name)?.splice(0) ?? []) resolve(report);
  };

  #name = (key: string, token: number, marker: boolean) => `${marker} ${token} ${key}`;

  /** The next report of a marker, or of a message, of this key and token. */
  next(key: string, token: number, marker: boolean): Promise<Report> {
    const name = this.#name(key, token, marker);
    return new Promise((resolve, reject) => {
      const what = `${marker ? "the marker" : "a message"} of ${key} under ${token}`;
      const timer = setTimeout(() => reject(new Error(`nothing was told of ${what}`)), VERDICT_MS);
      const waiting = this.#waiting.get(name) ?? [];
      this.#waiting.set(name, waiting);
      waiting.push((report) => {
        clearTimeout(timer);
        resolve(report);
      });
    });
  }

  of<K extends Report["is"]>(is: K): Extract<Report, { is: K }>[] {
    return this.reports.filter((report): report is Extract<Report, { is: K }> => report.is === is);
  }

  /** Resolves when a report of this kind has come, `count` in all. */
  async has(is: Report["is"], count = 1): Promise<void> {
    await until(() => this.of(is).length >= count, { what: `${count} reports of ${is}`, limitMs: VERDICT_MS });
  }
}

/** Rejects as a fence does if the consumer has dropped the message as stale. */
export function expectTaken(report: Report): void {
  if (report.is === "stale") throw stale(report.key, report.token, report.floor);
  if (report.is !== "handled" && report.is !== "raised" && report.is !== "duplicate") {
    throw new Error(`the consumer said ${report.is}`);
  }
}

/** Publishes through a producer and waits for what the consumer says: the fence as the conformance suite wants it. */
export function fencedBy<M>(producer: StampedProducer<M>, verdicts: Verdicts, message: (value: string) => M) {
  return {
    async raise(lock: Fenced): Promise<void> {
      const told = holdsOf(lock).map((hold) => verdicts.next(hold.resource, hold.token, true));
      for (const each of told) each.catch(() => {}); // not waited for if nothing is published
      await producer.raise(lock);
      for (const report of await Promise.all(told)) expectTaken(report);
    },
    async write(by: Fenced, value: string): Promise<void> {
      const hold: Hold = holdOf(by);
      const publisher: Publisher<M> = await producer.open(hold);
      const told = verdicts.next(hold.resource, hold.token, false);
      told.catch(() => {});
      await publisher.publish(message(value));
      expectTaken(await told);
    },
  };
}

/** A service that tells what became of the next message of a key and token: for producers in other processes. */
export async function verdictService(verdicts: Verdicts): Promise<{ url: string; server: Server }> {
  const server = createServer((request, response) => {
    const query = new URL(request.url ?? "", "http://localhost").searchParams;
    const told = verdicts.next(query.get("key") ?? "", Number(query.get("token")), false);
    response.flushHeaders(); // it is being waited for
    told.then(
      (report) => response.end(report.is),
      () => response.destroy(),
    );
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, server };
}

/** Registers, and marks of one consumer, in PostgreSQL; a handler that writes both in one transaction. */
export class Registers {
  /** Requests of the marks. */
  queries = 0;
  readonly marks;

  constructor(
    readonly pool: pg.Pool,
    readonly consumer: string,
  ) {
    const counting: MarkQueries = {
      query: (text, values) => {
        this.queries += 1;
        return pool.query(text, values);
      },
    };
    this.marks = postgresHighWater(counting, { consumer });
  }

  async migrate(): Promise<void> {
    await this.marks.migrate();
    await this.pool.query(
      `create table if not exists register (
         consumer text, name text, value text, writes int not null default 1, primary key (consumer, name))`,
    );
  }

  /** Runs a function in a transaction. */
  async tx<R>(run: (tx: pg.PoolClient) => Promise<R>): Promise<R> {
    const tx = await this.pool.connect();
    try {
      await tx.query("begin");
      const result = await run(tx);
      await tx.query("commit");
      return result;
    } catch (error) {
      await tx.query("rollback").catch(() => {});
      throw error;
    } finally {
      tx.release();
    }
  }

  /** Writes the register of the message's key, and the mark, in one transaction. */
  async handle(value: string, context: MessageContext<MarkQueries>): Promise<void> {
    await this.tx(async (tx) => {
      await tx.query(
        `insert into register as r (consumer, name, value) values ($1, $2, $3)
         on conflict (consumer, name) do update set value = excluded.value, writes = r.writes + 1`,
        [this.consumer, context.key, value],
      );
      await context.save(tx);
    });
  }

  async row(name: string): Promise<{ value: string; writes: number } | undefined> {
    const { rows } = await this.pool.query("select value, writes from register where consumer = $1 and name = $2", [
      this.consumer,
      name,
    ]);
    return rows[0] as { value: string; writes: number } | undefined;
  }

  async read(name: string): Promise<string | undefined> {
    return (await this.row(name))?.value;
  }

  async recreate(name: string): Promise<void> {
    await this.pool.query("delete from register where consumer = $1 and name = $2", [this.consumer, name]);
    await this.pool.query("insert into register (consumer, name, value) values ($1, $2, 'new')", [this.consumer, name]);
  }
}

/**
 * A consumer without its check, made by a driver that lies: a stale message gets the floor's token, and the mode that
 * makes it a message without an order. What the consumer says of it is translated back.
 */
export class StaleOnesLetThrough {
  readonly #floors = new Map<string, number>();
  /** The original positions of tampered messages, by the sequences that they were given. */
  readonly #originals = new Map<number, { token: number; sequence: number }>();
  #next = 1_000_000;

  constructor(readonly verdicts: Verdicts) {}

  /** The headers that the consumer gets. */
  headers<H extends Readonly<Record<string, unknown>>>(headers: H): H {
    const { key, token, sequence } = readStamp(headers);
    const floor = this.#floors.get(key) ?? 0;
    if (token >= floor) {
      // Those who share do not raise the floor.
      if (headers["leasehold-mode"] === undefined) this.#floors.set(key, token);
      return headers;
    }
    // A stale marker: it says nothing that the consumer does not know.
    if (sequence === 0) queueMicrotask(() => this.verdicts.report({ is: "raised", key, token, sequence }));
    const given = sequence === 0 ? 0 : this.#next++;
    this.#originals.set(given, { token, sequence });
    return {
      ...headers,
      "leasehold-token": String(floor),
      "leasehold-sequence": String(given),
      "leasehold-mode": "shared",
    };
  }

  readonly report = (report: Report): void => {
    const original = "sequence" in report && report.sequence > 0 ? this.#originals.get(report.sequence) : undefined;
    this.verdicts.report(original ? { ...report, ...original } : report);
  };
}

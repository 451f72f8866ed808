/**
 * Correct histories, drawn at random: a server of a few lines that keeps the rules, and clients whose calls and results
 * are late, lost, or never come. Tokens and timestamps go up by ten, so that a fault can be planted between two of them.
 */
import type { HistoryEntry, HistoryEvent, HistoryLock } from "../../src/client/index.js";

export type Random = () => number;

interface ServerHold {
  readonly lock: HistoryLock;
  readonly token: number;
  readonly slots: readonly number[];
  readonly owner: Client;
  shared: boolean;
  /** The client knows of it and believes in it. */
  believed: boolean;
}

class Client {
  nextId = 1;
  /** Its last operation has returned then. */
  freeAtNs = 0;
  seenTimestamp = 0;
  readonly observer = this.nextId++;
  constructor(readonly process: string) {}
}

const NAMES = ["a", "b", "c"];

export class Generator {
  readonly events: HistoryEvent[] = [];
  readonly #random: Random;
  readonly #holds = new Map<string, ServerHold[]>(NAMES.map((name) => [name, []]));
  readonly #floors = new Map<string, number>();
  readonly #clients: Client[] = [];
  #nowNs = 1_000_000;
  #token = 0;
  #clock = 0;
  #clientsMade = 0;

  constructor(random: Random, clients = 5) {
    this.#random = random;
    for (let i = 0; i < clients; i++) this.#clients.push(this.#client());
  }

  run(steps: number): HistoryEvent[] {
    for (let i = 0; i < steps; i++) this.#step();
    // Events of different processes need not be in order, those of one process are.
    return this.events.sort((a, b) => a.ns - b.ns);
  }

  #client(): Client {
    return new Client(`p${++this.#clientsMade}`);
  }

  #pick<T>(list: readonly T[]): T | undefined {
    return list[Math.floor(this.#random() * list.length)];
  }

  #step(): void {
    this.#nowNs += 10 + Math.floor(this.#random() * 1_000);
    const client = this.#pick(this.#clients) as Client;
    if (client.freeAtNs >= this.#nowNs) return;
    const hold = this.#pick(
      [...this.#holds.values()].flat().filter(({ owner, believed }) => owner === client && believed),
    );
    const roll = this.#random();
    if (roll < 0.02) this.#kill(client);
    else if (roll < 0.1) this.#range(client);
    else if (roll < 0.15) this.#tick(client);
    else if (roll < 0.2) this.#observe(client);
    else if (!hold || roll < 0.4) this.#acquire(client);
    else this.#use(client, hold, this.#random());
  }

  #use(client: Client, hold: ServerHold, roll: number): void {
    const { token, lock } = hold;
    const { name } = lock;
    if (roll < 0.35) this.#look(client, { op: "refresh", type: "ok", name, token });
    else if (roll < 0.45) this.#expire(hold);
    else if (roll < 0.5) this.#transfer(client, hold);
    else if (roll < 0.6 && lock.mode === "exclusive") this.#downgrade(client, hold);
    else if (roll < 0.75) this.#write(client, token);
    else this.#release(client, hold);
  }

  /** A call and its result around the moment at which it takes effect, which is now. */
  #operation(client: Client, call: HistoryEntry, result: HistoryEntry | null): void {
    const id = client.nextId++;
    const sinceNs = client.freeAtNs + 1;
    const long = this.#random() < 0.2 ? 0.95 : this.#random() * 0.2;
    const calledNs = this.#nowNs - Math.floor(Math.min(this.#nowNs - sinceNs, 20_000) * long);
    this.events.push({ ...call, process: client.process, id, ns: calledNs });
    client.freeAtNs = this.#nowNs + 1 + Math.floor(this.#random() ** 4 * 8_000);
    if (result) this.events.push({ ...result, process: client.process, id, ns: client.freeAtNs });
    else this.#replace(client);
  }

  #look(client: Client, entry: HistoryEntry, id = client.nextId++): void {
    this.events.push({ ...entry, process: client.process, id, ns: this.#nowNs });
    client.freeAtNs = this.#nowNs;
  }

  #replace(client: Client): void {
    this.#clients[this.#clients.indexOf(client)] = this.#client();
  }

  #kill(client: Client): void {
    this.#replace(client);
    for (const holds of this.#holds.values())
      for (const hold of holds) if (hold.owner === client) hold.believed = false;
  }

  #expire(hold: ServerHold): void {
    // The belief is over long before; here: at once, and the lease some time later, when somebody needs the lock.
    hold.believed = false;
    if (this.#random() < 0.5)
      this.#look(hold.owner, { op: "refresh", type: "fail", name: hold.lock.name, token: hold.token });
  }

  #fits({ name, mode, permits = 1, limit = 1 }: HistoryLock): boolean {
    const holds = this.#holds.get(name) as ServerHold[];
    // What nobody believes in any more may have expired by now.
    for (const hold of [...holds]) if (!hold.believed && this.#random() < 0.5) holds.splice(holds.indexOf(hold), 1);
    if (holds.length === 0) return true;
    if (mode === "exclusive") return false;
    if (mode === "shared") return holds.every(({ shared }) => shared);
    if (holds.some((hold) => hold.lock.mode !== "semaphore")) return false;
    const taken = holds.reduce((sum, hold) => sum + (hold.lock.permits ?? 1), 0);
    return taken + permits <= holds.reduce((least, hold) => Math.min(least, hold.lock.limit ?? 1), limit);
  }

  #wanted(name: string): HistoryLock {
    const roll = this.#random();
    if (roll < 0.4) return { name, mode: "exclusive" };
    if (roll < 0.7) return { name, mode: "shared" };
    const limit = 2 + Math.floor(this.#random() * 3);
    return { name, mode: "semaphore", permits: 1 + Math.floor(this.#random() * 2), limit };
  }

  #acquire(client: Client): void {
    const names = this.#random() < 0.2 ? NAMES.filter(() => this.#random() < 0.6) : [this.#pick(NAMES) as string];
    if (names.length === 0) return;
    const locks = names.map((name) => this.#wanted(name));
    const call: HistoryEntry = { op: "acquire", type: "invoke", locks };
    if (!locks.every((lock) => this.#fits(lock))) {
      this.#operation(client, call, { op: "acquire", type: "fail", error: "BUSY" });
      return;
    }
    this.#clock += 10;
    const told = this.#random() < 0.9;
    const timestamp = this.#clock;
    const grants = locks.map((lock) => {
      const { token, slots } = this.#grant(client, lock, told);
      return lock.mode === "semaphore" ? { token, timestamp, slots } : { token, timestamp };
    });
    if (told) {
      this.#operation(client, call, { op: "acquire", type: "ok", grants });
      client.seenTimestamp = Math.max(client.seenTimestamp, timestamp);
    } else this.#operation(client, call, this.#random() < 0.5 ? { op: "acquire", type: "unknown" } : null);
  }

  #grant(owner: Client, lock: HistoryLock, believed: boolean): ServerHold {
    const holds = this.#holds.get(lock.name) as ServerHold[];
    const used = new Set(holds.flatMap(({ slots }) => slots));
    const slots: number[] = [];
    for (let slot = 0; slots.length < (lock.permits ?? 0); slot++) if (!used.has(slot)) slots.push(slot);
    this.#token += 10;
    const hold = { lock, token: this.#token, slots, owner, shared: lock.mode === "shared", believed };
    holds.push(hold);
    return hold;
  }

  #end(hold: ServerHold): void {
    const holds = this.#holds.get(hold.lock.name) as ServerHold[];
    holds.splice(holds.indexOf(hold), 1);
  }

  #release(client: Client, hold: ServerHold): void {
    const call: HistoryEntry = { op: "release", type: "invoke", name: hold.lock.name, token: hold.token };
    const known = this.#random() < 0.9;
    hold.believed = false;
    if (known || this.#random() < 0.5) this.#end(hold);
    const silent = this.#random() < 0.3;
    this.#operation(
      client,
      call,
      known ? { op: "release", type: "ok" } : silent ? null : { op: "release", type: "unknown" },
    );
  }

  #downgrade(client: Client, hold: ServerHold): void {
    const call: HistoryEntry = { op: "downgrade", type: "invoke", name: hold.lock.name, token: hold.token };
    const roll = this.#random();
    if (roll < 0.8) hold.shared = true;
    this.#operation(client, call, { op: "downgrade", type: roll < 0.7 ? "ok" : roll < 0.9 ? "unknown" : "fail" });
  }

  #transfer(client: Client, hold: ServerHold): void {
    const { name } = hold.lock;
    const next = this.#pick(this.#clients.filter((other) => other !== client && other.freeAtNs < this.#nowNs));
    const call: HistoryEntry = { op: "transfer", type: "invoke", name, token: hold.token, ticket: "t" };
    if (!next || hold.lock.mode !== "exclusive" || hold.shared) {
      this.#operation(client, call, { op: "transfer", type: "fail", error: "NOT_WAITING" });
      return;
    }
    this.#end(hold);
    const lock: HistoryLock = { name, mode: "exclusive" };
    const { token } = this.#grant(next, lock, true);
    this.#clock += 10;
    const grants = [{ token, timestamp: this.#clock }];
    next.seenTimestamp = Math.max(next.seenTimestamp, this.#clock);
    this.#operation(client, call, { op: "transfer", type: "ok" });
    this.#operation(next, { op: "acquire", type: "invoke", locks: [lock] }, { op: "acquire", type: "ok", grants });
  }

  #range(client: Client): void {
    const count = 1 + Math.floor(this.#random() * 3);
    const first = Math.max(this.#clock, client.seenTimestamp) + 10;
    this.#clock = first + 10 * count;
    client.seenTimestamp = first + count - 1;
    const result: HistoryEntry = { op: "range", type: "ok", first, last: first + count - 1 };
    this.#operation(client, { op: "range", type: "invoke", count }, result);
  }

  #tick(client: Client): void {
    client.seenTimestamp += 1 + Math.floor(this.#random() * 50);
    this.#look(client, { op: "tick", type: "ok", timestamp: client.seenTimestamp });
  }

  #observe(client: Client): void {
    const leader = (this.#holds.get("a") as ServerHold[])[0];
    if (leader?.lock.mode !== "exclusive") return;
    this.#look(client, { op: "observe", type: "ok", name: "a", token: leader.token }, client.observer);
  }

  /** Also with tokens that were lost long ago. */
  #write(client: Client, token: number): void {
    const resource = this.#pick(["r", "s"]) as string;
    const used = this.#random() < 0.2 ? Math.max(10, token - 10 * Math.floor(this.#random() * 20)) : token;
    const floor = this.#floors.get(resource) ?? 0;
    const accepted = used >= floor;
    if (accepted) this.#floors.set(resource, used);
    const result: HistoryEntry = { op: "write", type: accepted ? "ok" : "fail" };
    this.#operation(
      client,
      { op: "write", type: "invoke", resource, token: used },
      this.#random() < 0.95 ? result : null,
    );
  }
}

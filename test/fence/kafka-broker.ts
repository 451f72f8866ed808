/**
 * A broker in memory, for the one client that no broker on the machine speaks with: @platformatic/kafka wants protocol
 * versions that librdkafka's mock broker does not have. It speaks over real sockets what that client sends: one node,
 * two partitions a topic, consumer groups with rebalances. It keeps nothing, and checks no more than the client relies
 * on.
 */
import { type AddressInfo, createServer, type Socket } from "node:net";
import { Reader, readRecordsBatch, Writer } from "@platformatic/kafka";

const PARTITIONS = [0, 1];
const HOST = "127.0.0.1";
/** How long a member may take to join anew before the others go on without it. */
const REBALANCE_MS = 2_000;

/** Keys and the one version of each that is spoken. */
const VERSIONS = {
  produce: [0, 11],
  fetch: [1, 17],
  listOffsets: [2, 9],
  metadata: [3, 12],
  offsetCommit: [8, 9],
  offsetFetch: [9, 9],
  findCoordinator: [10, 6],
  joinGroup: [11, 9],
  heartbeat: [12, 4],
  leaveGroup: [13, 5],
  syncGroup: [14, 5],
  apiVersions: [18, 3],
} as const;
const NAMES = new Map(Object.entries(VERSIONS).map(([name, [key]]) => [key as number, name as keyof typeof VERSIONS]));

const UNKNOWN_MEMBER = 25;
const ILLEGAL_GENERATION = 22;
const REBALANCING = 27;

type Reply = (body: Writer) => void;
type Handler = (request: Reader, reply: Reply) => void;

interface Batch {
  readonly firstOffset: bigint;
  readonly nextOffset: bigint;
  readonly bytes: Buffer;
}

interface Member {
  metadata: Buffer;
  join: (() => void) | undefined;
  sync: (() => void) | undefined;
  assignment: Buffer | undefined;
}

/** The coordinator of one group. */
class Group {
  generation = 0;
  rebalancing = false;
  readonly members = new Map<string, Member>();
  readonly offsets = new Map<string, bigint>();
  #ids = 0;

  newId(): string {
    return `member-${++this.#ids}`;
  }

  /** All that are there have joined: a new generation begins. */
  completeIfAll(): void {
    const members = [...this.members.values()];
    if (members.length === 0 || members.some(({ join }) => !join)) return;
    this.generation += 1;
    this.rebalancing = false;
    for (const member of members) {
      member.assignment = undefined;
      const { join } = member;
      member.join = undefined;
      join?.();
    }
  }

  /** The others are told so by their heartbeats. */
  rebalance(): void {
    this.rebalancing = true;
    setTimeout(() => {
      if (!this.rebalancing) return;
      for (const [id, { join }] of this.members) if (!join) this.members.delete(id);
      this.completeIfAll();
    }, REBALANCE_MS).unref();
    this.completeIfAll();
  }
}

/** Starts it on a free port. */
export async function startBroker() {
  const broker = new Broker();
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    sockets.add(socket);
    socket.on("error", () => {}).on("close", () => sockets.delete(socket));
    readFrames(socket, (frame) => broker.answer(frame, socket));
  });
  await new Promise<void>((resolve) => server.listen(0, HOST, resolve));
  broker.port = (server.address() as AddressInfo).port;
  return {
    brokers: [`${HOST}:${broker.port}`],
    /** The committed offset of a partition; undefined: none. */
    committed: (group: string, topic: string, partition: number) =>
      broker.group(group).offsets.get(`${partition} ${topic}`),
    async stop() {
      for (const socket of sockets) socket.destroy();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

function readFrames(socket: Socket, handle: (frame: Buffer) => void): void {
  let rest = Buffer.alloc(0);
  socket.on("data", (data) => {
    rest = Buffer.concat([rest, data]);
    while (rest.length >= 4 && rest.length >= 4 + rest.readInt32BE(0)) {
      const end = 4 + rest.readInt32BE(0);
      handle(rest.subarray(4, end));
      rest = rest.subarray(end);
    }
  });
}

class Broker {
  port = 0;
  readonly #logs = new Map<string, Batch[]>();
  readonly #groups = new Map<string, Group>();
  /** Fetches that wait for data. */
  readonly #waiting = new Set<() => void>();
  readonly #topics: string[] = [];

  group(name: string): Group {
    const group = this.#groups.get(name) ?? new Group();
    this.#groups.set(name, group);
    return group;
  }

  answer(frame: Buffer, socket: Socket): void {
    const request = Reader.from(frame);
    const [apiKey, version, correlation] = [request.readInt16(), request.readInt16(), request.readInt32()];
    request.readNullableString(false);
    request.readTaggedFields();
    const name = NAMES.get(apiKey);
    if (!name || VERSIONS[name][1] !== version) throw new Error(`the client wants API ${apiKey}, version ${version}`);
    const handler: Handler = this[name];
    handler.call(this, request, (body) => {
      const response = Writer.create().appendInt32(correlation);
      if (name !== "apiVersions") response.appendTaggedFields();
      const bytes = Buffer.concat([response.buffer, body.appendTaggedFields().buffer]);
      const size = Buffer.alloc(4);
      size.writeInt32BE(bytes.length);
      if (!socket.destroyed) socket.write(Buffer.concat([size, bytes]));
    });
  }

  apiVersions: Handler = (_request, reply) => {
    const versions = Object.values(VERSIONS);
    const write = (w: Writer, [key, version]: (typeof versions)[number]) =>
      void w.appendInt16(key).appendInt16(version).appendInt16(version);
    reply(Writer.create().appendInt16(0).appendArray(versions, write).appendInt32(0));
  };

  /** A topic's id is its place in the list: topics are made when they are asked for. */
  #topicId(topic: string): string {
    if (!this.#topics.includes(topic)) this.#topics.push(topic);
    return `00000000-0000-4000-8000-${String(this.#topics.indexOf(topic) + 1).padStart(12, "0")}`;
  }

  #log(topic: string, partition: number): Batch[] {
    const name = `${partition} ${topic}`;
    const log = this.#logs.get(name) ?? [];
    this.#logs.set(name, log);
    return log;
  }

  metadata: Handler = (request, reply) => {
    const topics = request.readNullableArray((r) => r.skip(16).readNullableString() ?? "") ?? this.#topics;
    const one = (w: Writer) => w.appendArray([1], (v, node) => void v.appendInt32(node), true, false);
    reply(
      Writer.create()
        .appendInt32(0)
        .appendArray(
          [this.port],
          (w, port) => void w.appendInt32(1).appendString(HOST).appendInt32(port).appendString(null),
        )
        .appendString("cluster")
        .appendInt32(1)
        .appendArray(topics, (w, topic) => {
          w.appendInt16(0).appendString(topic).appendUUID(this.#topicId(topic)).appendBoolean(false);
          w.appendArray(PARTITIONS, (v, partition) => {
            one(one(v.appendInt16(0).appendInt32(partition).appendInt32(1).appendInt32(0)));
            v.appendArray([], () => {}, true, false);
          }).appendInt32(0);
        }),
    );
  };

  produce: Handler = (request, reply) => {
    request.readNullableString();
    request.skip(2 + 4); // acks, time limit
    const topics = request.readArray((r) => ({
      name: r.readString(),
      partitions: r.readArray((p) => {
        const partition = p.readInt32();
        const size = p.readUnsignedVarInt() - 1;
        const bytes = Buffer.from(p.buffer.slice(p.position, p.position + size));
        p.skip(size);
        return { partition, bytes };
      }),
    }));
    const body = Writer.create().appendArray(topics, (w, { name, partitions }) => {
      w.appendString(name).appendArray(partitions, (v, { partition, bytes }) => {
        v.appendInt32(partition)
          .appendInt16(0)
          .appendInt64(this.#append(name, partition, bytes));
        v.appendInt64(-1n)
          .appendInt64(0n)
          .appendArray([], () => {})
          .appendString(null);
      });
    });
    for (const look of [...this.#waiting]) look();
    reply(body.appendInt32(0));
  };

  #append(topic: string, partition: number, bytes: Buffer): bigint {
    const log = this.#log(topic, partition);
    const firstOffset = log.at(-1)?.nextOffset ?? 0n;
    bytes.writeBigInt64BE(firstOffset); // the checksum does not cover it
    const count = readRecordsBatch(Reader.from(bytes)).records.length;
    log.push({ firstOffset, nextOffset: firstOffset + BigInt(count), bytes });
    return firstOffset;
  }

  listOffsets: Handler = (request, reply) => {
    request.skip(4 + 1);
    const topics = request.readArray((r) => ({
      name: r.readString(),
      partitions: r.readArray((p) => ({ partition: p.readInt32(), _epoch: p.readInt32(), at: p.readInt64() })),
    }));
    const body = Writer.create().appendInt32(0);
    body.appendArray(topics, (w, { name, partitions }) => {
      w.appendString(name).appendArray(partitions, (v, { partition, at }) => {
        const offset = at === -2n ? 0n : (this.#log(name, partition).at(-1)?.nextOffset ?? 0n); // -2: the earliest
        v.appendInt32(partition).appendInt16(0).appendInt64(-1n).appendInt64(offset).appendInt32(0);
      });
    });
    reply(body);
  };

  fetch: Handler = (request, reply) => {
    const waitMs = request.readInt32();
    request.skip(4 + 4 + 1 + 4 + 4);
    const topics = request.readArray((r) => ({
      id: r.readUUID(),
      partitions: r.readArray((p) => {
        const [partition] = [p.readInt32(), p.readInt32()] as const;
        const offset = p.readInt64();
        p.skip(4 + 8 + 4);
        return { partition, offset };
      }),
    }));
    const found = topics.map(({ id, partitions }) => {
      const topic = this.#topics.find((name) => this.#topicId(name) === id) ?? "";
      return { id, topic, partitions };
    });
    const due = (topic: string, partition: number, offset: bigint) =>
      this.#log(topic, partition).filter((batch) => batch.nextOffset > offset);
    const any = () => found.some((t) => t.partitions.some((p) => due(t.topic, p.partition, p.offset).length > 0));
    const send = () => {
      this.#waiting.delete(look);
      clearTimeout(timer);
      const body = Writer.create().appendInt32(0).appendInt16(0).appendInt32(0);
      body.appendArray(found, (w, { id, topic, partitions }) => {
        w.appendUUID(id).appendArray(partitions, (v, { partition, offset }) => {
          const end = this.#log(topic, partition).at(-1)?.nextOffset ?? 0n;
          const records = Buffer.concat(due(topic, partition, offset).map(({ bytes }) => bytes));
          v.appendInt32(partition).appendInt16(0).appendInt64(end).appendInt64(end).appendInt64(0n);
          v.appendArray([], () => {})
            .appendInt32(-1)
            .appendUnsignedVarInt(records.length + 1)
            .append(records);
        });
      });
      reply(body);
    };
    const look = () => any() && send();
    const timer = setTimeout(send, waitMs);
    this.#waiting.add(look);
    look();
  };

  findCoordinator: Handler = (request, reply) => {
    request.skip(1);
    const keys = request.readArray((r) => r.readString(), true, false);
    const write = (w: Writer, key: string) =>
      void w
        .appendString(key)
        .appendInt32(1)
        .appendString(HOST)
        .appendInt32(this.port)
        .appendInt16(0)
        .appendString(null);
    reply(Writer.create().appendInt32(0).appendArray(keys, write));
  };

  joinGroup: Handler = (request, reply) => {
    const group = this.group(request.readString());
    request.skip(4 + 4);
    const id = request.readString() || group.newId();
    request.readNullableString();
    request.readString();
    const [protocol] = request.readArray((r) => ({ name: r.readString(), metadata: r.readBytes() }));
    const join = () => {
      const [leader = ""] = group.members.keys();
      const members = leader === id ? [...group.members] : [];
      const body = Writer.create().appendInt32(0).appendInt16(0).appendInt32(group.generation).appendString("consumer");
      body
        .appendString(protocol?.name ?? null)
        .appendString(leader)
        .appendBoolean(false)
        .appendString(id);
      body.appendArray(members, (w, [memberId, { metadata }]) => {
        w.appendString(memberId).appendString(null).appendBytes(metadata);
      });
      reply(body);
    };
    const metadata = protocol?.metadata ?? Buffer.alloc(0);
    group.members.set(id, { metadata, join, sync: undefined, assignment: undefined });
    group.rebalance();
  };

  syncGroup: Handler = (request, reply) => {
    const group = this.group(request.readString());
    request.skip(4);
    const id = request.readString();
    for (let i = 0; i < 3; i++) request.readNullableString();
    const assignments = request.readArray((r) => [r.readString(), r.readBytes()] as const);
    const own = group.members.get(id);
    const sync = () => {
      const assignment = group.members.get(id)?.assignment ?? Buffer.alloc(0);
      const body = Writer.create().appendInt32(0).appendInt16(0).appendString("consumer").appendString(null);
      reply(body.appendBytes(assignment));
    };
    if (!own) {
      const body = Writer.create().appendInt32(0).appendInt16(UNKNOWN_MEMBER).appendString(null).appendString(null);
      reply(body.appendBytes(Buffer.alloc(0)));
      return;
    }
    own.sync = sync;
    for (const [memberId, assignment] of assignments) {
      const member = group.members.get(memberId);
      if (member) member.assignment = assignment;
    }
    for (const member of group.members.values()) {
      if (!member.assignment || !member.sync) continue;
      const answer = member.sync;
      member.sync = undefined;
      answer();
    }
  };

  #standing(group: Group, generation: number, id: string): number {
    if (!group.members.has(id)) return UNKNOWN_MEMBER;
    if (group.rebalancing) return REBALANCING;
    return generation === group.generation ? 0 : ILLEGAL_GENERATION;
  }

  heartbeat: Handler = (request, reply) => {
    const group = this.group(request.readString());
    const error = this.#standing(group, request.readInt32(), request.readString());
    reply(Writer.create().appendInt32(0).appendInt16(error));
  };

  leaveGroup: Handler = (request, reply) => {
    const group = this.group(request.readString());
    const ids = request.readArray((r) => [r.readString(), r.readNullableString(), r.readNullableString()] as const);
    for (const [id] of ids) group.members.delete(id);
    const write = (w: Writer, [id]: (typeof ids)[number]) => void w.appendString(id).appendString(null).appendInt16(0);
    reply(Writer.create().appendInt32(0).appendInt16(0).appendArray(ids, write));
    if (group.members.size > 0) group.rebalance();
  };

  offsetCommit: Handler = (request, reply) => {
    const group = this.group(request.readString());
    const error = this.#standing(group, request.readInt32(), request.readString());
    request.readNullableString();
    const topics = request.readArray((r) => ({
      name: r.readString(),
      partitions: r.readArray((p) => {
        const [partition, offset] = [p.readInt32(), p.readInt64()];
        p.skip(4);
        p.readNullableString();
        return { partition, offset };
      }),
    }));
    const body = Writer.create().appendInt32(0);
    body.appendArray(topics, (w, { name, partitions }) => {
      w.appendString(name).appendArray(partitions, (v, { partition, offset }) => {
        if (error === 0) group.offsets.set(`${partition} ${name}`, offset);
        v.appendInt32(partition).appendInt16(error);
      });
    });
    reply(body);
  };

  offsetFetch: Handler = (request, reply) => {
    const groups = request.readArray((r) => ({
      name: r.readString(),
      _member: [r.readNullableString(), r.readInt32()],
      topics: r.readArray((t) => ({
        topic: t.readString(),
        partitions: t.readArray((p) => p.readInt32(), true, false),
      })),
    }));
    const body = Writer.create().appendInt32(0);
    body.appendArray(groups, (w, { name, topics }) => {
      w.appendString(name);
      w.appendArray(topics, (v, { topic, partitions }) => {
        v.appendString(topic).appendArray(partitions, (u, partition) => {
          const offset = this.group(name).offsets.get(`${partition} ${topic}`) ?? -1n;
          u.appendInt32(partition).appendInt64(offset).appendInt32(-1).appendString(null).appendInt16(0);
        });
      }).appendInt16(0);
    });
    reply(body);
  };
}

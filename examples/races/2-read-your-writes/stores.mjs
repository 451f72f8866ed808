/** Orders in PostgreSQL and in Redis, read from a replica: as it is often done, and with a causal session. */
import { postgresCausal, redisCausal } from "@leasehold/fence/causal";
import { Redis } from "ioredis";
import pg from "pg";

const UPDATE = "update orders set state = $1 where id = 1";
const SELECT = "select state from orders where id = 1";

const poolOf = (connectionString) => {
  const pool = new pg.Pool({ connectionString });
  pool.on("error", () => {}); // an idle connection that broke is replaced
  return pool;
};

/** Writes go to the primary, reads to the replica. Nobody knows how far that one is. */
export function plainPostgres({ primary, replica }) {
  const [writes, reads] = [poolOf(primary), poolOf(replica)];
  return {
    write: (state) => writes.query(UPDATE, [state]),
    async read() {
      const { rows } = await reads.query(SELECT);
      return { state: rows[0].state, from: "replica" };
    },
  };
}

/** The same, where the write leaves its position in the headers of the answer, and the read takes it from those of the request. */
export function causalPostgres({ primary, replica }) {
  const causal = postgresCausal({ primary: poolOf(primary), replicas: [poolOf(replica)] });
  return {
    async write(state, answerHeaders) {
      const session = causal.session();
      await session.write((db) => db.query(UPDATE, [state]));
      session.inject(answerHeaders);
    },
    async read(requestHeaders) {
      const session = causal.session();
      session.extract(requestHeaders);
      const { rows } = await session.read((db) => db.query(SELECT));
      return { state: rows[0].state, from: session.lastRead.on };
    },
  };
}

export function plainRedis({ primary, replica }) {
  const [writes, reads] = [new Redis(primary), new Redis(replica)];
  return {
    write: (state) => writes.set("order:1", state),
    read: async () => ({ state: await reads.get("order:1"), from: "replica" }),
  };
}

export function causalRedis({ primary, replica }) {
  const causal = redisCausal({ primary: new Redis(primary), replicas: [new Redis(replica)] });
  return {
    async write(state, answerHeaders) {
      const session = causal.session();
      await session.write((redis) => redis.set("order:1", state));
      session.inject(answerHeaders);
    },
    async read(requestHeaders) {
      const session = causal.session();
      session.extract(requestHeaders);
      return { state: await session.read((redis) => redis.get("order:1")), from: session.lastRead.on };
    },
  };
}

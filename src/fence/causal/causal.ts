/** Causal sessions: reading your own writes from replicas. How they work is told in `session.ts`. */
export type { HeaderCarrier, ReceivedHeaders } from "./carrier.js";
export {
  type LamportCausal,
  type LamportCausalOptions,
  type LamportReplica,
  type LamportSession,
  type LamportSource,
  lamportCausal,
} from "./lamport.js";
export type { CausalOptions, ReadOptions, ReadReason, ReadReport } from "./options.js";
export {
  type PgClient,
  type PgPool,
  type PgWriteOptions,
  type PostgresCausal,
  type PostgresCausalOptions,
  type PostgresSession,
  postgresCausal,
} from "./postgres.js";
export {
  type RedisCausal,
  type RedisCausalOptions,
  type RedisClient,
  type RedisSession,
  redisCausal,
} from "./redis.js";
export type { CausalSession } from "./session.js";

/**
 * Saving a profile in one service, and showing it in another one that reads from a replica. In two ways, on PostgreSQL and
 * on Redis.
 *
 * This is the file to read: each function does what a program of yours would do.
 */
import { postgresCausal, redisCausal } from "@leasehold/fence/causal";

/** `primary` and `replica`: pools of `pg`. */
export const inPostgres = ({ primary, replica, waitMs }) => ({
  ...{ primary, replica, causal: postgresCausal({ primary, replicas: [replica], waitMs }) },
  save: (db, id, name) => db.query("update profiles set name = $2 where id = $1", [id, name]),
  load: async (db, id) => (await db.query("select name from profiles where id = $1", [id])).rows[0].name,
});

/** `primary` and `replica`: connections of `ioredis`. */
export const inRedis = ({ primary, replica, waitMs }) => ({
  ...{ primary, replica, causal: redisCausal({ primary, replicas: [replica], waitMs }) },
  save: (db, id, name) => db.set(`profile:${id}`, name),
  load: (db, id) => db.get(`profile:${id}`),
});

/** Service A: saves, and sends the user on to service B. Returns the headers of the redirect. */
export async function savePlainly({ primary, save }, { id, name, location }) {
  await save(primary, id, name);
  return { location };
}

/** Service B: shows what the replica has, be it old or new. */
export async function showPlainly({ replica, load }, { id }) {
  return { name: await load(replica, id) };
}

/** Service A: the redirect carries the position of the write, in the header `Causal-Position`. */
export async function saveCausally({ causal, save }, { id, name, location }) {
  const session = causal.session();
  await session.write((db) => save(db, id, name));
  return session.inject({ location });
}

/** Service B: reads where that position has been reached. */
export async function showCausally({ causal, load }, { id, headers }) {
  const session = causal.session();
  session.extract(headers);
  const name = await session.read((db) => load(db, id));
  return { name, read: session.lastRead };
}

/**
 * Prices in PostgreSQL, and a cache of them in Redis. In two ways.
 *
 * This is the file to read: each function does what a program of yours would do.
 */
const READ = "select price from products where id = $1";
const WRITE = "update products set price = $2 where id = $1";
const SECONDS = 3_600;

const keyOf = (id) => `product/${id}`;
const load = async (db, id) => (await db.query(READ, [id])).rows[0].price;

/** Cache-aside: what is not in the cache is read from the source, be it the primary or a replica, and put there. */
export async function priceAside({ redis, source, loaded }, id) {
  const cached = await redis.get(keyOf(id));
  if (cached !== null) return Number(cached);
  const price = await load(source, id);
  await loaded();
  await redis.set(keyOf(id), price, "EX", SECONDS);
  return price;
}

/** And what is changed is deleted from the cache. Too early for a slow reader, too late if the process ends before. */
export async function changeAside({ redis, primary, committed }, id, price) {
  await primary.query(WRITE, [id, price]);
  await committed();
  await redis.del(keyOf(id));
}

/** What is put into the cache lands only if nobody has changed it since the miss. */
export function priceFenced({ cache, causal, primary, loaded }, id) {
  return cache.get(keyOf(id), async ({ positions, primary: primaryOnly }) => {
    const session = causal.session();
    for (const position of positions) session.merge(position); // the replica must have come as far as that
    const price = await (primaryOnly ? load(primary, id) : session.read((db) => load(db, id)));
    await loaded();
    return price;
  });
}

/** In two phases, before and behind the commit. The position of the commit is for those who read from replicas. */
export function changeFenced({ cache, causal, committed }, id, price) {
  const session = causal.session();
  const commit = async () => {
    await session.write((db) => db.query(WRITE, [id, price]));
    await committed();
  };
  return cache.around([keyOf(id)], commit, { position: () => session.position });
}

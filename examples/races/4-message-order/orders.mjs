/** What the consumers make of the messages: a row for each order, and what was applied, in the order in which it was. */
export const SCHEMA = `
  drop table if exists orders, applied;
  create table orders (id int primary key, state text not null, payments int not null default 0);
  create table applied (n serial primary key, id int not null, type text not null)`;

const UPSERT = `
  insert into orders as o (id, state, payments) values ($1, $2, $3)
  on conflict (id) do update set state = excluded.state, payments = o.payments + excluded.payments`;

/** Applies an event, as many consumers do: what comes last, wins. */
export async function apply(db, { id, type }) {
  await db.query(UPSERT, [id, type, type === "paid" ? 1 : 0]);
  await db.query("insert into applied (id, type) values ($1, $2)", [id, type]);
}

export async function inTransaction(pool, work) {
  const db = await pool.connect();
  try {
    await db.query("begin");
    await work(db);
    await db.query("commit");
  } catch (error) {
    await db.query("rollback");
    throw error;
  } finally {
    db.release();
  }
}

/** A lease as it is often made: a row with an end, judged by the wall clock of whoever looks. */
const SCHEMA = "create table if not exists lease (name text primary key, holder text, until_ms integer not null)";
const TAKE = `
  insert into lease values (@name, @holder, @nowMs + @ttlMs)
  on conflict (name) do update set holder = excluded.holder, until_ms = excluded.until_ms where until_ms < @nowMs`;

export function naiveLeases(db) {
  db.exec(SCHEMA);
  const take = db.prepare(TAKE);
  const free = db.prepare("delete from lease where name = ? and holder = ?");
  return {
    /** True: it is ours, as far as our clock can tell. */
    take: (name, holder, ttlMs) => take.run({ name, holder, ttlMs, nowMs: Date.now() }).changes === 1,
    free: (name, holder) => free.run(name, holder),
  };
}

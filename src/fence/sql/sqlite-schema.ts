/**
 * The table of floors in SQLite.
 *
 * The floor never falls: triggers refuse to lower it, also by `insert or replace`, which deletes the old row without
 * telling any trigger. Only `delete` resets it.
 *
 * `typeof(token)`: a column's type is a wish in SQLite. Without it the text "99" could be stored, and text is greater than
 * every number.
 */
import { invalid, show } from "../errors.js";

/** The name of the table of floors. Throws INVALID unless it is plain, and short enough for the names made from it. */
export function checkTable(table: unknown): string {
  if (typeof table === "string" && /^[A-Za-z_][A-Za-z0-9_]{0,47}$/.test(table) && !/^sqlite_/i.test(table))
    return table;
  throw invalid(`the table must be a name of 1 to 48 letters, digits and underscores, not ${show(table)}`);
}

/** Statements that may be run any number of times, by any number of processes. `table`: a checked name. */
export const sqliteSchema = (table: string): readonly string[] => [
  `create table if not exists "${table}" (
  resource text not null primary key,
  token integer not null default 0 check (typeof(token) = 'integer' and token between 0 and 9007199254740991)
) without rowid`,

  `create trigger if not exists "${table}_never_falls" before update on "${table}"
when new.token < old.token or new.resource <> old.resource
begin
  select raise(abort, 'the floor of a resource never falls');
end`,

  `create trigger if not exists "${table}_never_replaced" before insert on "${table}"
when exists (select 1 from "${table}" where resource = new.resource and token > new.token)
begin
  select raise(abort, 'the floor of a resource never falls');
end`,
];

/**
 * The table of floors, and the routines that raise and check them. They can be called from any language:
 *
 *     select leasehold_fence_raise('orders/42', 34);              -- at the grant
 *
 *     begin;
 *     select leasehold_fence_limits(2500, 5000);                  -- milliseconds: a pause or a wait for a lock; a statement
 *     ...
 *     call leasehold_fence_check('orders/42', 34, true);          -- false for a shared hold
 *     commit;
 *
 * `raise` and `check` refuse a stale token with the SQLSTATE LH409; the detail of that error is the floor in digits, a
 * space, and the resource.
 *
 * **The check is a share lock.** It comes late in the writer's transaction, and the lock that it takes on the row of the
 * floor lasts until the commit:
 *
 *     token 33: check, floor 33, share lock
 *                                               token 34: raise, waits for the lock
 *     token 33: commit
 *                                               token 34: floor 34; reads what 33 has written
 *
 * Without the lock the raise would get in between check and commit, and 34 would read what 33 is about to overwrite.
 * Holders with the same token, and those who share a lock, have share locks together, and do not wait for each other.
 *
 * **No share lock is turned into an exclusive one.** Two transactions that both have the share lock, and both want to
 * raise, would wait for each other. So the check does not lock a floor that is too low. That one must be raised (it was
 * reset, or lost with a failover: otherwise the token of a holder is there before it writes), which locks it once.
 *
 * **A missing row is no floor to lock.** A shared hold, which never raises, would check nothing and lock nothing, and a
 * raise could get in between its check and its commit. So it makes the row, with the floor 0.
 */
import { invalid, show } from "../errors.js";

/** Where the table of floors is. Its functions and its trigger have its name, with a suffix, and are beside it. */
export interface PostgresTable {
  readonly schema: string;
  readonly table: string;
}

const NAME = /^[a-z_][a-z0-9_]*$/;
const NAME_BYTES_MAX = 63;
/** The longest suffix is `_limits`. */
const TABLE_BYTES_MAX = NAME_BYTES_MAX - "_limits".length;

function checkName(name: unknown, what: string, bytesMax: number): string {
  if (typeof name === "string" && NAME.test(name) && name.length <= bytesMax) return name;
  throw invalid(`${what} must be 1 to ${bytesMax} of a-z, 0-9 and _, and not begin with a digit, not ${show(name)}`);
}

/** Throws INVALID unless both are plain lower-case names. */
export function checkTable({ schema, table }: PostgresTable): PostgresTable {
  return { schema: checkName(schema, "schema", NAME_BYTES_MAX), table: checkName(table, "table", TABLE_BYTES_MAX) };
}

/** `"schema"."table"`, or the function with that suffix. */
export const nameOf = ({ schema, table }: PostgresTable, suffix = ""): string => `"${schema}"."${table}${suffix}"`;

/** Text as a literal, whatever `standard_conforming_strings` says. */
export const literal = (text: string): string => `E'${text.replaceAll("\\", "\\\\").replaceAll("'", "''")}'`;

/** Any number: only who makes this table takes this lock. */
const MIGRATION_LOCK = "5497853157214117";

/**
 * The statements that make the table, or bring it up to date; what it holds stays. For an administrator, or the owner of the
 * schema. One at a time runs it: two `create or replace` at once fail with "tuple concurrently updated".
 */
export function migrationOf(at: PostgresTable): string {
  const fence = nameOf(at);
  return `begin isolation level read committed;
set local client_min_messages = warning;
select pg_advisory_xact_lock(${MIGRATION_LOCK});

create table if not exists ${fence} (
  resource text collate "C" primary key,
  token bigint not null default 0 check (token between 0 and 9007199254740991)
);

-- A floor never falls. Only who may delete its row can make it begin anew.
create or replace function ${nameOf(at, "_keep")}() returns trigger language plpgsql as $$
begin
  if new.resource <> old.resource then
    raise exception 'a floor stays with its resource' using errcode = 'check_violation';
  end if;
  if new.token < old.token then
    raise exception 'stale token %: the floor of % is %', new.token, old.resource, old.token
      using errcode = 'LH409', detail = old.token || ' ' || old.resource;
  end if;
  return new;
end
$$;

do $$
begin
  if not exists (
    select from pg_catalog.pg_trigger where tgrelid = '${fence}'::regclass and tgname = '${at.table}_keep'
  ) then
    create trigger "${at.table}_keep" before update on ${fence}
      for each row execute function ${nameOf(at, "_keep")}();
  end if;
end
$$;

-- Raises the floor to the token, and returns it. LH409 when it is higher.
create or replace function ${nameOf(at, "_raise")}(of_resource text, to_token bigint) returns bigint
language plpgsql as $$
declare
  seen bigint;
begin
  -- Most often it is there already: then there is nothing to lock.
  select token into seen from ${fence} where resource = of_resource;
  if seen is null or seen < to_token then
    insert into ${fence} as fence (resource, token) values (of_resource, to_token)
      on conflict (resource) do update set token = excluded.token where fence.token < excluded.token
      returning fence.token into seen;
    if seen is null then -- somebody else has just raised it at least as far; the row is locked now
      select token into seen from ${fence} where resource = of_resource;
    end if;
  end if;
  if seen > to_token then
    raise exception 'stale token % for %: % has been used', to_token, of_resource, seen
      using errcode = 'LH409', detail = seen || ' ' || of_resource;
  end if;
  return seen;
end
$$;

-- The check of a writer, late in its transaction; it holds until the commit. LH409 when the token is stale.
-- A procedure: to call one costs less than to select a function.
create or replace procedure ${nameOf(at, "_check")}(of_resource text, by_token bigint, raises boolean)
language plpgsql as $$
declare
  seen bigint;
begin
  -- A floor that must be raised is not locked here: two that have the share lock and both want more would wait for each
  -- other.
  select token into seen from ${fence} where resource = of_resource and (token >= by_token or not raises) for share;
  if seen is null and raises then
    perform ${nameOf(at, "_raise")}(of_resource, by_token);
    return;
  end if;
  if seen is null then -- a shared hold: there must be a row to lock, and it must not count as a raise
    insert into ${fence} (resource, token) values (of_resource, 0) on conflict (resource) do nothing;
    select token into seen from ${fence} where resource = of_resource for share;
    if seen is null then
      raise exception 'the floor of % was reset meanwhile', of_resource using errcode = 'serialization_failure';
    end if;
  end if;
  if seen > by_token then
    raise exception 'stale token % for %: % has been used', by_token, of_resource, seen
      using errcode = 'LH409', detail = seen || ' ' || of_resource;
  end if;
end
$$;

-- Limits what this transaction may wait for, in milliseconds: for a lock or for its client, and for a statement. A limit
-- that is set already, and is lower, stays. True if none was set, and all are now.
create or replace function ${nameOf(at, "_limits")}(wait_ms int, statement_ms int) returns boolean
language plpgsql as $$
declare
  of_wait text := current_setting('lock_timeout');
  of_pause text := current_setting('idle_in_transaction_session_timeout');
  of_statement text := current_setting('statement_timeout');
  of_network_ms bigint := coalesce(substring(current_setting('tcp_user_timeout') from '^[0-9]+$')::bigint, 0);
  network_ms int := greatest(wait_ms, 1000); -- a lost packet is no pause
  linux boolean := strpos(version(), 'linux') > 0;
  ignored text;
begin
  if of_wait = '0' or extract(epoch from of_wait::interval) * 1000 > wait_ms then
    ignored := set_config('lock_timeout', wait_ms::text, true);
  end if;
  if of_pause = '0' or extract(epoch from of_pause::interval) * 1000 > wait_ms then
    ignored := set_config('idle_in_transaction_session_timeout', wait_ms::text, true);
  end if;
  if of_statement = '0' or extract(epoch from of_statement::interval) * 1000 > statement_ms then
    ignored := set_config('statement_timeout', statement_ms::text, true);
  end if;
  -- A client that does not take its result: to the limits above that is no pause, and no statement that could be ended.
  if linux and (of_network_ms = 0 or of_network_ms > network_ms) then
    ignored := set_config('tcp_user_timeout', network_ms::text, true);
  end if;
  return linux and of_network_ms = 0 and of_wait = '0' and of_pause = '0' and of_statement = '0';
end
$$;

commit;
`;
}

begin isolation level read committed;
set local client_min_messages = warning;
select pg_advisory_xact_lock(5497853157214117);

create table if not exists "public"."leasehold_fence" (
  resource text collate "C" primary key,
  token bigint not null default 0 check (token between 0 and 9007199254740991)
);

-- A floor never falls. Only who may delete its row can make it begin anew.
create or replace function "public"."leasehold_fence_keep"() returns trigger language plpgsql as $$
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
    select from pg_catalog.pg_trigger where tgrelid = '"public"."leasehold_fence"'::regclass and tgname = 'leasehold_fence_keep'
  ) then
    create trigger "leasehold_fence_keep" before update on "public"."leasehold_fence"
      for each row execute function "public"."leasehold_fence_keep"();
  end if;
end
$$;

-- Raises the floor to the token, and returns it. LH409 when it is higher.
create or replace function "public"."leasehold_fence_raise"(of_resource text, to_token bigint) returns bigint
language plpgsql as $$
declare
  seen bigint;
begin
  -- Most often it is there already: then there is nothing to lock.
  select token into seen from "public"."leasehold_fence" where resource = of_resource;
  if seen is null or seen < to_token then
    insert into "public"."leasehold_fence" as fence (resource, token) values (of_resource, to_token)
      on conflict (resource) do update set token = excluded.token where fence.token < excluded.token
      returning fence.token into seen;
    if seen is null then -- somebody else has just raised it at least as far; the row is locked now
      select token into seen from "public"."leasehold_fence" where resource = of_resource;
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
create or replace procedure "public"."leasehold_fence_check"(of_resource text, by_token bigint, raises boolean)
language plpgsql as $$
declare
  seen bigint;
begin
  -- A floor that must be raised is not locked here: two that have the share lock and both want more would wait for each
  -- other.
  select token into seen from "public"."leasehold_fence" where resource = of_resource and (token >= by_token or not raises) for share;
  if seen is null and raises then
    perform "public"."leasehold_fence_raise"(of_resource, by_token);
    return;
  end if;
  if seen is null then -- a shared hold: there must be a row to lock, and it must not count as a raise
    insert into "public"."leasehold_fence" (resource, token) values (of_resource, 0) on conflict (resource) do nothing;
    select token into seen from "public"."leasehold_fence" where resource = of_resource for share;
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
create or replace function "public"."leasehold_fence_limits"(wait_ms int, statement_ms int) returns boolean
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

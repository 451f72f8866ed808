create table if not exists "leasehold_fence" (
  resource text not null primary key,
  token integer not null default 0 check (typeof(token) = 'integer' and token between 0 and 9007199254740991)
) without rowid;

create trigger if not exists "leasehold_fence_never_falls" before update on "leasehold_fence"
when new.token < old.token or new.resource <> old.resource
begin
  select raise(abort, 'the floor of a resource never falls');
end;

create trigger if not exists "leasehold_fence_never_replaced" before insert on "leasehold_fence"
when exists (select 1 from "leasehold_fence" where resource = new.resource and token > new.token)
begin
  select raise(abort, 'the floor of a resource never falls');
end;

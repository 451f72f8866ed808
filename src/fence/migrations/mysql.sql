delimiter //
create table if not exists `leasehold_fence` (
  resource varbinary(523) not null primary key,
  token bigint not null default 0 check (token between 0 and 9007199254740991)
) engine = InnoDB//

-- A floor never falls. Only who may delete its row can make it begin anew.
create trigger if not exists `leasehold_fence_keep` before update on `leasehold_fence` for each row
begin
  if new.resource <> old.resource then
    signal sqlstate '45000' set message_text = 'a floor stays with its resource';
  end if;
  if new.token < old.token then
    signal sqlstate '45000' set message_text = 'a floor never falls';
  end if;
end//

drop procedure if exists `leasehold_fence_limits`//

create procedure `leasehold_fence_limits`(wait_s int, statement_ms int) sql security invoker comment 'Leasehold''s fence, version 1'
begin
  -- A limit that is set already, and is lower, stays; 0 is none, but for locks.
  if @leasehold_saved is null then
    set @leasehold_innodb_lock_wait_timeout = @@session.innodb_lock_wait_timeout;
    set @leasehold_lock_wait_timeout = @@session.lock_wait_timeout;
    /*M! set @leasehold_idle_transaction_timeout = @@session.idle_transaction_timeout; */
    /*M! set @leasehold_idle_write_transaction_timeout = @@session.idle_write_transaction_timeout; */
    /*M! set @leasehold_idle_readonly_transaction_timeout = @@session.idle_readonly_transaction_timeout; */
    /*M! set @leasehold_max_statement_time = @@session.max_statement_time; */
    /*!80029 set @leasehold_wait_timeout = @@session.wait_timeout; */
    /*!80029 set @leasehold_max_execution_time = @@session.max_execution_time; */
    set @leasehold_saved = 1;
  end if;
  set session innodb_lock_wait_timeout = least(@leasehold_innodb_lock_wait_timeout, wait_s);
  set session lock_wait_timeout = least(@leasehold_lock_wait_timeout, wait_s);
  /*M! set session idle_transaction_timeout = if(@leasehold_idle_transaction_timeout = 0, wait_s, least(@leasehold_idle_transaction_timeout, wait_s)); */
  /*M! set session idle_write_transaction_timeout = if(@leasehold_idle_write_transaction_timeout = 0, wait_s, least(@leasehold_idle_write_transaction_timeout, wait_s)); */
  /*M! set session idle_readonly_transaction_timeout = if(@leasehold_idle_readonly_transaction_timeout = 0, wait_s, least(@leasehold_idle_readonly_transaction_timeout, wait_s)); */
  /*M! set session max_statement_time = if(@leasehold_max_statement_time = 0, statement_ms / 1000, least(@leasehold_max_statement_time, statement_ms / 1000)); */
  /*!80029 set session wait_timeout = if(@leasehold_wait_timeout = 0, wait_s, least(@leasehold_wait_timeout, wait_s)); */
  /*!80029 set session max_execution_time = if(@leasehold_max_execution_time = 0, statement_ms, least(@leasehold_max_execution_time, statement_ms)); */
end//

drop procedure if exists `leasehold_fence_restore`//

create procedure `leasehold_fence_restore`() sql security invoker comment 'Leasehold''s fence, version 1'
begin
  if @leasehold_saved is not null then
    set session innodb_lock_wait_timeout = @leasehold_innodb_lock_wait_timeout;
    set session lock_wait_timeout = @leasehold_lock_wait_timeout;
    /*M! set session idle_transaction_timeout = @leasehold_idle_transaction_timeout; */
    /*M! set session idle_write_transaction_timeout = @leasehold_idle_write_transaction_timeout; */
    /*M! set session idle_readonly_transaction_timeout = @leasehold_idle_readonly_transaction_timeout; */
    /*M! set session max_statement_time = @leasehold_max_statement_time; */
    /*!80029 set session wait_timeout = @leasehold_wait_timeout; */
    /*!80029 set session max_execution_time = @leasehold_max_execution_time; */
    set @leasehold_saved = null;
  end if;
end//

drop procedure if exists `leasehold_fence_raise`//

create procedure `leasehold_fence_raise`(of_resource varbinary(523), by_token bigint) sql security invoker comment 'Leasehold''s fence, version 1'
begin
  declare seen bigint;
  declare refusal varchar(128);
  declare continue handler for not found begin end;
  -- Most often it is there already: then there is nothing to lock.
  select token into seen from `leasehold_fence` where resource = of_resource;
  if seen is null or seen < by_token then
    insert into `leasehold_fence` (resource, token) values (of_resource, by_token)
      on duplicate key update token = greatest(token, by_token);
    select token into seen from `leasehold_fence` where resource = of_resource lock in share mode;
  end if;
  if seen > by_token then
    set refusal = concat(seen, ' has been used, so this token is stale: ', by_token);
    signal sqlstate 'LH409' set message_text = refusal;
  end if;
end//

drop procedure if exists `leasehold_fence_check`//

create procedure `leasehold_fence_check`(of_resource varbinary(523), by_token bigint, raises boolean) sql security invoker comment 'Leasehold''s fence, version 1'
begin
  declare seen bigint;
  declare refusal varchar(128);
  declare continue handler for not found begin end;
  -- Without a lock: two that have the share lock and both want to raise would wait for each other.
  select token into seen from `leasehold_fence` where resource = of_resource;
  if raises and (seen is null or seen < by_token) then
    call `leasehold_fence_raise`(of_resource, by_token);
  elseif seen is null then
    -- A shared hold: there must be a row to lock, and it must not count as a raise.
    insert ignore into `leasehold_fence` (resource, token) values (of_resource, 0);
  end if;
  set seen = null;
  select token into seen from `leasehold_fence` where resource = of_resource lock in share mode;
  if seen is null then
    signal sqlstate '40001' set message_text = 'the floor was reset meanwhile';
  end if;
  if seen > by_token then
    set refusal = concat(seen, ' has been used, so this token is stale: ', by_token);
    signal sqlstate 'LH409' set message_text = refusal;
  end if;
end//

drop procedure if exists `leasehold_fence_begin`//

create procedure `leasehold_fence_begin`(isolation varchar(16), wait_s int, statement_ms int, of_resource varbinary(523), by_token bigint) sql security invoker comment 'Leasehold''s fence, version 1'
begin
  rollback;
  set @leasehold_at = null;
  call `leasehold_fence_limits`(wait_s, statement_ms);
  if of_resource is not null then
    set transaction isolation level read committed;
    start transaction;
    call `leasehold_fence_raise`(of_resource, by_token);
    commit; -- before the snapshot of what follows is taken
  end if;
  if isolation = 'read committed' then
    set transaction isolation level read committed;
  elseif isolation = 'repeatable read' then
    set transaction isolation level repeatable read;
  elseif isolation = 'serializable' then
    set transaction isolation level serializable;
  end if;
  start transaction;
end//

drop procedure if exists `leasehold_fence_commit`//

create procedure `leasehold_fence_commit`(of_resource varbinary(523), by_token bigint, raises boolean) sql security invoker comment 'Leasehold''s fence, version 1'
begin
  /*M! if @@in_transaction = 0 then
    signal sqlstate '25000' set message_text = 'the transaction was ended before its check';
  end if; */
  call `leasehold_fence_check`(of_resource, by_token, raises);
  call `leasehold_fence_restore`();
  set @leasehold_at = 'commit'; -- from here on, who is interrupted does not know what came of it
  commit;
end//

drop procedure if exists `leasehold_fence_end`//

create procedure `leasehold_fence_end`() sql security invoker comment 'Leasehold''s fence, version 1'
begin
  rollback;
  call `leasehold_fence_restore`();
end//
delimiter ;

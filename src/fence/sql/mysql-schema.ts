/**
 * The table of floors, and the procedures that raise and check them. They can be called from any language:
 *
 *     call leasehold_fence_raise('orders/42', 34);              -- at the grant
 *
 *     -- isolation or null; seconds for a pause or a wait for a lock; milliseconds for a statement; a floor to raise or null
 *     call leasehold_fence_begin(null, 1, 2000, 'orders/42', 34);
 *     ...
 *     call leasehold_fence_commit('orders/42', 34, true);       -- false for a shared hold
 *     call leasehold_fence_end();                               -- instead, or after an error: rolls back
 *
 * A stale token is refused with the SQLSTATE LH409; the message of that error begins with the floor in digits.
 *
 * **Procedures, since several statements in one message are off by default.** `begin` sets the time limits, raises the
 * floor, commits that, and starts the transaction; `commit` checks, gives the session its own limits back, and commits.
 *
 * **The check is a share lock**, as in postgres-schema.ts: without it a raise would get in between check and commit. And no
 * share lock is turned into an exclusive one: the floor is looked at without a lock first, and one that must be raised is
 * locked only by the raise.
 *
 * **A locking read sees what is committed**, also under repeatable read, where a plain one sees the snapshot. So the look
 * decides nothing but which lock is taken; the check is what the locking read has found.
 *
 * **The resource is bytes.** The collations that both servers have ignore spaces at the end: 'a' = 'a '. Those would be
 * two locks with one floor.
 */
import { invalid, show } from "../errors.js";

/** Where the table of floors is. Its procedures and its trigger have its name, with a suffix, and are beside it. */
export interface MysqlTable {
  /** Undefined: the one that the connections have chosen. */
  readonly database: string | undefined;
  readonly table: string;
}

/** The longest suffix is `_restore`. */
const TABLE = /^[a-z_][a-z0-9_]{0,55}$/;
const DATABASE = /^[A-Za-z0-9_$-]{1,64}$/;

/** Throws INVALID unless both are plain names. */
export function checkTable({ database, table }: { database: unknown; table: unknown }): MysqlTable {
  if (typeof table !== "string" || !TABLE.test(table)) {
    throw invalid(`table must be 1 to 56 of a-z, 0-9 and _, and not begin with a digit, not ${show(table)}`);
  }
  if (database === undefined) return { database, table };
  if (typeof database === "string" && DATABASE.test(database)) return { database, table };
  throw invalid(`database must be 1 to 64 of A-Z, a-z, 0-9, _, $ and -, not ${show(database)}`);
}

/** `` `database`.`table` ``, or the procedure with that suffix. */
export const nameOf = ({ database, table }: MysqlTable, suffix = ""): string =>
  `${database === undefined ? "" : `\`${database}\`.`}\`${table}${suffix}\``;

/** Text as a literal of its bytes in UTF-8, whatever the session's modes and character sets are. */
export const bytesOf = (text: string): string => `x'${Buffer.from(text).toString("hex")}'`;

/** Changes with the procedures: who has this one need not be brought up to date. */
const COMMENT = "Leasehold's fence, version 1";
const PROCEDURES = ["limits", "restore", "raise", "check", "begin", "commit", "end"];

/** Counts what there is of table, trigger and procedures of this version, and how many there should be. */
export function inventoryOf({ database, table }: MysqlTable): { text: string; values: unknown[]; complete: number } {
  const here = database === undefined ? "database()" : "?";
  const named = database === undefined ? [] : [database];
  const text = `select
  (select count(*) from information_schema.tables where table_schema = ${here} and table_name = ?)
  + (select count(*) from information_schema.triggers where trigger_schema = ${here} and trigger_name = ?)
  + (select count(*) from information_schema.routines where routine_schema = ${here} and routine_comment = ?
      and routine_name in (${PROCEDURES.map(() => "?").join(", ")})) as found`;
  const routines = PROCEDURES.map((name) => `${table}_${name}`);
  const values = [...named, table, ...named, `${table}_keep`, ...named, COMMENT, ...routines];
  return { text, values, complete: 2 + PROCEDURES.length };
}

/** What the procedures change in a session: the variable, what it is set to, and the server that has it. */
const LIMITS: readonly (readonly [variable: string, value: string, server: "both" | "mariadb" | "mysql"])[] = [
  ["innodb_lock_wait_timeout", "wait_s", "both"],
  ["lock_wait_timeout", "wait_s", "both"],
  ["idle_transaction_timeout", "wait_s", "mariadb"],
  ["idle_write_transaction_timeout", "wait_s", "mariadb"],
  ["idle_readonly_transaction_timeout", "wait_s", "mariadb"],
  ["max_statement_time", "statement_ms / 1000", "mariadb"],
  ["wait_timeout", "wait_s", "mysql"],
  ["max_execution_time", "statement_ms", "mysql"],
];

/** A statement that only one of the servers sees. */
const only = (server: "both" | "mariadb" | "mysql", text: string): string =>
  server === "both" ? text : server === "mariadb" ? `/*M! ${text} */` : `/*!80029 ${text} */`;

const limitsBody = (): string => {
  const saves = LIMITS.map(([name, , server]) => only(server, `set @leasehold_${name} = @@session.${name};`));
  const sets = LIMITS.map(([name, value, server]) => {
    const saved = `@leasehold_${name}`;
    const lower = `least(${saved}, ${value})`;
    const zeroIsNone = !name.includes("lock");
    return only(server, `set session ${name} = ${zeroIsNone ? `if(${saved} = 0, ${value}, ${lower})` : lower};`);
  });
  return `begin
  -- A limit that is set already, and is lower, stays; 0 is none, but for locks.
  if @leasehold_saved is null then
    ${saves.join("\n    ")}
    set @leasehold_saved = 1;
  end if;
  ${sets.join("\n  ")}
end`;
};

const restoreBody = (): string => {
  const sets = LIMITS.map(([name, , server]) => only(server, `set session ${name} = @leasehold_${name};`));
  return `begin
  if @leasehold_saved is not null then
    ${sets.join("\n    ")}
    set @leasehold_saved = null;
  end if;
end`;
};

const OF = "of_resource varbinary(523)";

/**
 * The statements that make the table, or bring it up to date; what it holds stays. One at a time runs them. While a
 * procedure is replaced it is missing for a moment: MySQL cannot do it in one step.
 */
export function migrationOf(at: MysqlTable): readonly string[] {
  const fence = nameOf(at);
  const procedure = (name: string, parameters: string, body: string): string[] => [
    `drop procedure if exists ${nameOf(at, `_${name}`)}`,
    `create procedure ${nameOf(at, `_${name}`)}(${parameters}) sql security invoker comment '${COMMENT.replace("'", "''")}'
${body}`,
  ];
  const refuse = `set refusal = concat(seen, ' has been used, so this token is stale: ', by_token);
    signal sqlstate 'LH409' set message_text = refusal;`;
  return [
    `create table if not exists ${fence} (
  resource varbinary(523) not null primary key,
  token bigint not null default 0 check (token between 0 and 9007199254740991)
) engine = InnoDB`,
    `-- A floor never falls. Only who may delete its row can make it begin anew.
create trigger if not exists ${nameOf(at, "_keep")} before update on ${fence} for each row
begin
  if new.resource <> old.resource then
    signal sqlstate '45000' set message_text = 'a floor stays with its resource';
  end if;
  if new.token < old.token then
    signal sqlstate '45000' set message_text = 'a floor never falls';
  end if;
end`,
    ...procedure("limits", "wait_s int, statement_ms int", limitsBody()),
    ...procedure("restore", "", restoreBody()),
    ...procedure(
      "raise",
      `${OF}, by_token bigint`,
      `begin
  declare seen bigint;
  declare refusal varchar(128);
  declare continue handler for not found begin end;
  -- Most often it is there already: then there is nothing to lock.
  select token into seen from ${fence} where resource = of_resource;
  if seen is null or seen < by_token then
    insert into ${fence} (resource, token) values (of_resource, by_token)
      on duplicate key update token = greatest(token, by_token);
    select token into seen from ${fence} where resource = of_resource lock in share mode;
  end if;
  if seen > by_token then
    ${refuse}
  end if;
end`,
    ),
    ...procedure(
      "check",
      `${OF}, by_token bigint, raises boolean`,
      `begin
  declare seen bigint;
  declare refusal varchar(128);
  declare continue handler for not found begin end;
  -- Without a lock: two that have the share lock and both want to raise would wait for each other.
  select token into seen from ${fence} where resource = of_resource;
  if raises and (seen is null or seen < by_token) then
    call ${nameOf(at, "_raise")}(of_resource, by_token);
  elseif seen is null then
    -- A shared hold: there must be a row to lock, and it must not count as a raise.
    insert ignore into ${fence} (resource, token) values (of_resource, 0);
  end if;
  set seen = null;
  select token into seen from ${fence} where resource = of_resource lock in share mode;
  if seen is null then
    signal sqlstate '40001' set message_text = 'the floor was reset meanwhile';
  end if;
  if seen > by_token then
    ${refuse}
  end if;
end`,
    ),
    ...procedure(
      "begin",
      `isolation varchar(16), wait_s int, statement_ms int, ${OF}, by_token bigint`,
      `begin
  rollback;
  set @leasehold_at = null;
  call ${nameOf(at, "_limits")}(wait_s, statement_ms);
  if of_resource is not null then
    set transaction isolation level read committed;
    start transaction;
    call ${nameOf(at, "_raise")}(of_resource, by_token);
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
end`,
    ),
    ...procedure(
      "commit",
      `${OF}, by_token bigint, raises boolean`,
      `begin
  /*M! if @@in_transaction = 0 then
    signal sqlstate '25000' set message_text = 'the transaction was ended before its check';
  end if; */
  call ${nameOf(at, "_check")}(of_resource, by_token, raises);
  call ${nameOf(at, "_restore")}();
  set @leasehold_at = 'commit'; -- from here on, who is interrupted does not know what came of it
  commit;
end`,
    ),
    ...procedure(
      "end",
      "",
      `begin
  rollback;
  call ${nameOf(at, "_restore")}();
end`,
    ),
  ];
}

/** The same for the client `mysql` or `mariadb`, as a file. */
export const migrationFile = (at: MysqlTable): string =>
  `delimiter //\n${migrationOf(at)
    .map((text) => `${text}//\n`)
    .join("\n")}delimiter ;\n`;

/**
 * The scripts of the fence. Redis runs a script as one step: nothing comes between its check and its write.
 *
 * Tokens are compared as the decimal text that they are, by length and then digit by digit, and never as Lua numbers:
 * those are doubles, and are turned into text with 14 digits ("%.14g"), so that 100000000000001 would be stored as 1e+14.
 *
 * KEYS[1] is the key of the floor. ARGV[1] is the token, ARGV[2] is 1 when the hold raises the floor. A refusal is a list
 * that begins with 0, the token is stale, or -1, the floor is not a number, and counts as no number at all. What has passed
 * replies a number, or a list that begins with 1.
 */
import { Script } from "./script.js";

/** Mostly the floor is the token: the holder has raised it. That case comes first, since it costs least. */
const floorIs = (otherwise: string) => `
local floor, token = redis.call("get", KEYS[1]) or "0", ARGV[1]
if floor ~= token then
if floor ~= "0" and not string.find(floor, "^[1-9]%d*$") then return {-1, floor} end
if #floor > #token or (#floor == #token and floor > token) then return {0, floor} end
${otherwise}end
`;

const CHECK = floorIs("");
/** Beside a write: so the floor is raised also where it was lost or reset since. */
const CHECK_AND_RAISE = floorIs(`if ARGV[2] == "1" then redis.call("set", KEYS[1], token) end
`);

const guarded = (write: string) => new Script(`${CHECK_AND_RAISE}${write}`);

/**
 * The raise by itself. It writes also what is there already: replicas acknowledge at once only what is behind a write.
 * INFO is asked for here, and not by itself, since a cluster's driver sends a script to the server that has the key.
 */
export const raiseScript = new Script(`${CHECK}
if ARGV[2] == "1" then redis.call("set", KEYS[1], token) end
local replication, memory = "", ""
if ARGV[3] == "1" then replication = redis.call("info", "replication") end
if ARGV[4] == "1" then memory = redis.call("info", "memory") end
return {1, replication, memory}`);

/** KEYS[1]: any key of the server that is meant. */
export const replicationScript = new Script(`return redis.call("info", "replication")`);

export const inspectScript = new Script(`return redis.call("get", KEYS[1]) or "0"`);
export const resetScript = new Script(`return redis.call("del", KEYS[1])`);

/** KEYS[2] the key, ARGV[3] the value, ARGV[4] the milliseconds that it lives, or nothing. */
export const setScript = guarded(`
if ARGV[4] then redis.call("set", KEYS[2], ARGV[3], "PX", ARGV[4]) else redis.call("set", KEYS[2], ARGV[3]) end
return 1`);

/** From KEYS[2] on: the keys. */
export const delScript = guarded(`return redis.call("del", unpack(KEYS, 2))`);

/** KEYS[2] the key, from ARGV[3] on fields and values. */
export const hsetScript = guarded(`return redis.call("hset", KEYS[2], unpack(ARGV, 3))`);

/**
 * A user's script, which sees its own keys and arguments, and its own line numbers in error messages: it begins in the
 * first line. An error that it returns is returned as it is.
 */
export const userScript = (script: string) =>
  new Script(`local function user(KEYS, ARGV) ${script}
end
${CHECK_AND_RAISE}
local keys, args = {}, {}
for i = 2, #KEYS do keys[i - 1] = KEYS[i] end
for i = 3, #ARGV do args[i - 2] = ARGV[i] end
local reply = user(keys, args)
if type(reply) == "table" and reply.err then return reply end
return {1, reply}`);

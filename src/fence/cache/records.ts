/**
 * What the cache keeps for a key, and the scripts that change it, each as one step.
 *
 * - value: the value, to be served as fresh until its time is over.
 * - stale: what was the value before somebody announced a change of it. Only for those who accept it, and only for a while.
 * - fill: who may fill the value. A caller that has loaded it puts it only if this record is still its own. A record that
 *   is missing is nobody's: it was revoked, or its time is over, or it was evicted.
 * - marks: the writers that have announced a change and have not finished it, with the times at which that is forgotten.
 * - writer: the one writer that has been alone since its mark. If it is still there at the end, nobody else has written in
 *   between, and the writer may put what it has written. (A version number could not tell that: the cache may forget the
 *   highest one, by time or by eviction, and then takes any.)
 * - positions: how far a replica of the source must have come to be read for a fill, `=` and the position. Each mark leaves
 *   a `?` and the writer's id, which its end replaces: a change of which nobody has told where it was committed, and the
 *   same goes for a mere `?`, which stands for more of them than are kept. Then only the primary will do.
 *
 * All are in one hash slot, and all have a time limit. Limits are measured by Redis, never by callers: by the wall clock of
 * its machine, as all time limits of keys are.
 */
import { invalid, show } from "../errors.js";
import { Script } from "../redis/script.js";

const KEY_BYTES_MAX = 1_024;
const POSITIONS_MAX = 16;
/** Writers of one key that have announced a change and not finished it, the crashed ones included. */
export const MARKS_MAX = 1_000;

/** The keys of the records in Redis, in the order in which all scripts have them. */
export type Records = [value: string, stale: string, fill: string, marks: string, writer: string, positions: string];

/** Throws INVALID for what is no key of the cache. */
export function recordsOf(prefix: string, key: unknown): Records {
  if (typeof key !== "string" || key === "" || Buffer.byteLength(key) > KEY_BYTES_MAX) {
    throw invalid(`a key must be text of 1 to ${KEY_BYTES_MAX} bytes, not ${show(key)}`);
  }
  // What stands between the braces decides the slot, and ends at the first closing one.
  const tag = key.replaceAll("%", "%25").replaceAll("}", "%7D");
  const of = (record: string) => `${prefix}{${tag}}:${record}`;
  return [of("value"), of("stale"), of("fill"), of("marks"), of("writer"), of("positions")];
}

const NAMES = `local VALUE, STALE, FILL, MARKS, WRITER, POSITIONS = unpack(KEYS)
`;
const NOW = `local time = redis.call("time")
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local function after(ms) return string.format("%.0f", now + ms) end
local since = "(" .. after(0)
`;

/** Keeps a position, or that one is not known, for so many milliseconds. */
const REMEMBER = `
local function remember(position, ms)
  redis.call("zremrangebyscore", POSITIONS, "-inf", after(0))
  redis.call("zadd", POSITIONS, after(ms), position)
  local spare = redis.call("zcard", POSITIONS) - ${POSITIONS_MAX}
  if spare > 0 then
    redis.call("zremrangebyrank", POSITIONS, 0, spare)
    redis.call("zadd", POSITIONS, after(ms), "?")
  end
  if redis.call("pttl", POSITIONS) < tonumber(ms) then redis.call("pexpire", POSITIONS, ms) end
end
`;

/**
 * KEYS: the value. Replies it, or nothing. It is a script, and not GET, since drivers send reads to replicas if they are told
 * to, and a replica may have what has been deleted.
 */
export const hitScript = new Script(`return redis.call("get", KEYS[1])`);

/**
 * ARGV: the caller's id, for how long it may fill, whether it accepts what is stale. Replies the value, or a list: 1 the
 * caller may fill, 0 it may not; 1 and the stale value, or 0 and nothing; positions.
 */
export const lookScript = new Script(`${NAMES}
local value = redis.call("get", VALUE)
if value then return value end
${NOW}
local mayFill, stale = 0, false
if redis.call("zcount", MARKS, since, "+inf") == 0 then
  local filler = redis.call("get", FILL)
  if not filler or filler == ARGV[1] then
    redis.call("set", FILL, ARGV[1], "PX", ARGV[2])
    mayFill = 1
  end
end
if ARGV[3] == "1" then stale = redis.call("get", STALE) end
local reply = redis.call("zrangebyscore", POSITIONS, since, "+inf")
table.insert(reply, 1, mayFill)
table.insert(reply, 2, stale and 1 or 0)
table.insert(reply, 3, stale or "")
return reply`);

/** ARGV: the filler's id, the value, for how long it is fresh. Replies whether it has landed. */
export const fillScript = new Script(`${NAMES}
if redis.call("get", FILL) ~= ARGV[1] then return 0 end
redis.call("set", VALUE, ARGV[2], "PX", ARGV[3])
redis.call("del", FILL, STALE)
return 1`);

/** ARGV: the filler's id. Lets others fill. */
export const giveUpScript = new Script(`${NAMES}
if redis.call("get", FILL) == ARGV[1] then redis.call("del", FILL) end
return 1`);

/**
 * The first phase of a change. ARGV: the writer's id, for how long its mark is kept, for how long what was the value may be
 * served as stale, for how long positions are kept. Replies whether there was room. What is done for a mark that is there
 * already, because the driver sent the script again, is the same, but it makes nobody alone who was not.
 */
export const markScript = new Script(`${NAMES}${NOW}${REMEMBER}
redis.call("zremrangebyscore", MARKS, "-inf", after(0))
local own = redis.call("zscore", MARKS, ARGV[1])
local others = redis.call("zcard", MARKS)
if not own and others >= ${MARKS_MAX} then return 0 end
if redis.call("exists", VALUE) == 1 then
  redis.call("rename", VALUE, STALE)
  local left = redis.call("pttl", STALE)
  if left < 0 or left > tonumber(ARGV[3]) then redis.call("pexpire", STALE, ARGV[3]) end
end
redis.call("del", FILL)
if not own and others == 0 then redis.call("set", WRITER, ARGV[1], "PX", ARGV[2]) end
if not own and others > 0 then redis.call("del", WRITER) end
redis.call("zadd", MARKS, after(ARGV[2]), ARGV[1])
if redis.call("pttl", MARKS) < tonumber(ARGV[2]) then redis.call("pexpire", MARKS, ARGV[2]) end
remember("?" .. ARGV[1], ARGV[4])
return 1`);

/**
 * The second phase. ARGV: the writer's id; for how long a position is kept; it with a `=`, or a `?` when it is not known, or
 * nothing when none are used; for how long the value is fresh; the value, if there is one.
 *
 * Whoever ends takes from others that they were alone: one whose mark is forgotten may have committed after them. A writer
 * that was alone has committed after all that had ended before its mark, so that its position makes up for theirs.
 */
export const finishScript = new Script(`${NAMES}${NOW}${REMEMBER}
redis.call("del", VALUE, STALE, FILL)
redis.call("zrem", MARKS, ARGV[1])
local alone = redis.call("get", WRITER) == ARGV[1]
redis.call("del", WRITER)
if ARGV[3] ~= "?" then redis.call("zrem", POSITIONS, "?" .. ARGV[1]) end
if string.sub(ARGV[3], 1, 1) == "=" then
  if alone then
    for _, position in ipairs(redis.call("zrange", POSITIONS, 0, -1)) do
      if string.sub(position, 1, 1) == "=" then redis.call("zrem", POSITIONS, position) end
    end
  end
  remember(ARGV[3], ARGV[2])
end
if alone and ARGV[5] then redis.call("set", VALUE, ARGV[5], "PX", ARGV[4]) end
return 1`);

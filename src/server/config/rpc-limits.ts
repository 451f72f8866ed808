/** The bounds of the transport and of watching as options; their defaults are stated where they are enforced. */
import type { z } from "zod";
import { rpcLimitDefaults as defaults, type RpcLimits, type WatchLimits, watchLimitDefaults } from "../rpc/limits.js";
import { bytes, count, duration } from "./options.js";

const MILLION = 1_000_000;
const KIB = 1_024;
const MIB = 1_048_576;

const countOf = (key: keyof RpcLimits, min: number, max: number, description: string) =>
  count(defaults[key], min, max, description);
const bytesOf = (key: keyof RpcLimits, min: number, max: number, description: string) =>
  bytes(defaults[key], min, max, description);
const durationOf = (key: keyof RpcLimits, minMs: number, description: string) =>
  duration(defaults[key], minMs, description, 3_600_000);

export const rpcLimitOptions = {
  frameBytesMax: bytesOf("frameBytesMax", 16 * KIB, 64 * MIB, "Largest request, or frame of a session."),
  commandsPerFrameMax: countOf("commandsPerFrameMax", 1, MILLION, "Commands in one frame of a session."),
  streamBufferedBytesMax: bytesOf(
    "streamBufferedBytesMax",
    64 * KIB,
    1_024 * MIB,
    "What may wait for a client that does not read its session stream before the stream is reset.",
  ),
  heldBytesMax: bytesOf("heldBytesMax", KIB, 64 * MIB, "What a session stream may send before it was welcomed."),
  streamsMax: countOf("streamsMax", 1, MILLION, "Open session streams."),
  streamsPerPrincipalMax: countOf("streamsPerPrincipalMax", 1, MILLION, "Open session streams of one principal."),
  callsMax: countOf("callsMax", 1, MILLION, "Unary calls that have not been answered, long polls included."),
  callsPerPrincipalMax: countOf("callsPerPrincipalMax", 1, MILLION, "Such calls of one principal."),
  watchesPerPrincipalMax: countOf("watchesPerPrincipalMax", 0, MILLION, "Open watches of one principal."),
  auxiliaryStreamsMax: countOf("auxiliaryStreamsMax", 1, MILLION, "Streams of health watches and of reflection."),
  streamsPerConnectionMax: countOf("streamsPerConnectionMax", 1, MILLION, "Calls and streams on one connection."),
  connectionMemoryMibMax: countOf("connectionMemoryMibMax", 1, 65_536, "Memory that one connection may use, in MiB."),
  pollMsMax: durationOf("pollMsMax", 10, "How long one unary Acquire is held open before it answers `waiting`."),
  helloMsMax: durationOf("helloMsMax", 10, "How long a session stream may take to say Hello."),
  closeMsMax: durationOf("closeMsMax", 0, "How long a closed stream may take to read its last bytes."),
  pageSizeDefault: countOf("pageSizeDefault", 1, 100_000, "Entries of a page whose client names no size."),
  pageSizeMax: countOf("pageSizeMax", 1, 100_000, "Entries of a page."),
  waitersListedDefault: countOf("waitersListedDefault", 1, 100_000, "Waiters listed to a client that names no number."),
  waitersListedMax: countOf("waitersListedMax", 1, 100_000, "Waiters listed when a lock is described."),
  topDefault: countOf(
    "topDefault",
    1,
    100_000,
    "Hottest locks, longest holds and longest waits that are told unless asked otherwise.",
  ),
  topMax: countOf("topMax", 1, 100_000, "Hottest locks, longest holds and longest waits that may be asked for."),
  listBytesMax: bytesOf("listBytesMax", KIB, 32 * MIB, "About how large the entries of one page may be together."),
  requestIdBytesMax: bytesOf("requestIdBytesMax", 16, 4 * KIB, "Longest request id."),
  idBytesMax: bytesOf("idBytesMax", 32, 4 * KIB, "Longest lease id, session id or cluster id that a client may send."),
  clientBytesMax: bytesOf("clientBytesMax", 0, 4 * KIB, "Longest name that a client library may give of itself."),
  claimsMax: countOf("claimsMax", 1, 10 * MILLION, "Grants that one resuming session may claim."),
  keepaliveMs: durationOf(
    "keepaliveMs",
    1_000,
    "A connection that is silent for this long is asked for a sign of life.",
  ),
  keepaliveTimeoutMs: durationOf("keepaliveTimeoutMs", 100, "How long that sign of life may take."),
} satisfies Record<keyof RpcLimits, z.ZodType<number>>;

const watch = watchLimitDefaults;

/** The bounds of watching as options. */
export const watchLimitOptions = {
  watchersMax: count(watch.watchersMax, 0, MILLION, "Open watches."),
  watchHistoryEventsMax: count(
    watch.watchHistoryEventsMax,
    0,
    100 * MILLION,
    "Events that are kept for watchers that come back.",
  ),
  watchHistoryBytesMax: bytes(
    watch.watchHistoryBytesMax,
    0,
    16 * 1_024 * MIB,
    "About how much memory the events that are kept for watchers may take.",
  ),
  watcherQueueEventsMax: count(
    watch.watcherQueueEventsMax,
    1,
    10 * MILLION,
    "Events that may wait for one watcher before it is told that it fell behind.",
  ),
} satisfies Record<keyof WatchLimits, z.ZodType<number>>;

/** Every bound that the transport enforces. Those of the state machine are `CoreLimits`. */
export interface RpcLimits {
  /** A message in either direction, in bytes: a unary request, a frame of a session. */
  readonly frameBytesMax: number;
  /** Commands in one frame of a session. The commands that a session may have in flight always fit. */
  readonly commandsPerFrameMax: number;
  /** What may wait for a client that does not read its session stream, in bytes, before the stream is reset. */
  readonly streamBufferedBytesMax: number;
  /** Frames that arrive before Welcome are held; this many bytes of them. */
  readonly heldBytesMax: number;
  /** Open session streams. */
  readonly streamsMax: number;
  /** Those of one principal. This and its likes count only where callers are authenticated. */
  readonly streamsPerPrincipalMax: number;
  /** Unary calls that have not been answered, long polls included. */
  readonly callsMax: number;
  readonly callsPerPrincipalMax: number;
  /** Open watches of one principal. */
  readonly watchesPerPrincipalMax: number;
  /** Streams of health watches and of reflection. */
  readonly auxiliaryStreamsMax: number;
  /** Calls and streams on one connection; a client keeps what exceeds it to itself. */
  readonly streamsPerConnectionMax: number;
  /** What one connection may make the server hold in memory, in MiB, before it accepts no further calls on it. */
  readonly connectionMemoryMibMax: number;
  /** How long one unary Acquire is held open before it answers `waiting`. */
  readonly pollMsMax: number;
  /** How long a session stream may take to say Hello. */
  readonly helloMsMax: number;
  /** How long the client of an ended call or stream may take to read the last bytes before they are dropped. */
  readonly closeMsMax: number;
  readonly pageSizeDefault: number;
  readonly pageSizeMax: number;
  readonly waitersListedDefault: number;
  readonly waitersListedMax: number;
  /** How many of the hottest locks, longest holds and longest waits are told. */
  readonly topDefault: number;
  readonly topMax: number;
  /** About how many bytes of entries a list may have; longer pages are cut short. At most half of `frameBytesMax`. */
  readonly listBytesMax: number;
  readonly requestIdBytesMax: number;
  /** Lease ids, session ids, cluster ids that a client sends. */
  readonly idBytesMax: number;
  /** The name that a client library gives of itself in Hello. */
  readonly clientBytesMax: number;
  /** Claims in one Hello. */
  readonly claimsMax: number;
  /** A connection is asked for a sign of life after this time of silence, */
  readonly keepaliveMs: number;
  /** and dropped when none comes within this time: the client is stopped, or the path to it is gone. */
  readonly keepaliveTimeoutMs: number;
}

export const rpcLimitDefaults: RpcLimits = {
  frameBytesMax: 1 << 20,
  commandsPerFrameMax: 16_384,
  streamBufferedBytesMax: 4 << 20,
  heldBytesMax: 1 << 20,
  streamsMax: 10_000,
  streamsPerPrincipalMax: 5_000,
  callsMax: 20_000,
  callsPerPrincipalMax: 10_000,
  watchesPerPrincipalMax: 100,
  auxiliaryStreamsMax: 1_000,
  streamsPerConnectionMax: 1_000,
  connectionMemoryMibMax: 64,
  pollMsMax: 10_000,
  helloMsMax: 10_000,
  closeMsMax: 5_000,
  pageSizeDefault: 100,
  pageSizeMax: 1_000,
  waitersListedDefault: 100,
  waitersListedMax: 1_000,
  topDefault: 10,
  topMax: 100,
  listBytesMax: 512 << 10,
  requestIdBytesMax: 128,
  idBytesMax: 128,
  clientBytesMax: 256,
  claimsMax: 100_000,
  keepaliveMs: 10_000,
  keepaliveTimeoutMs: 10_000,
};

/** Every bound of watching. */
export interface WatchLimits {
  /** Open watches. */
  readonly watchersMax: number;
  /** Events that are kept for watchers that come back, */
  readonly watchHistoryEventsMax: number;
  /** and about how many bytes they may take together. */
  readonly watchHistoryBytesMax: number;
  /** Events that may wait for one watcher before it is told that it fell behind. */
  readonly watcherQueueEventsMax: number;
}

export const watchLimitDefaults: WatchLimits = {
  watchersMax: 1_000,
  watchHistoryEventsMax: 65_536,
  watchHistoryBytesMax: 64 << 20,
  watcherQueueEventsMax: 10_000,
};

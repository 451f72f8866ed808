export type { Client, ClientEvents, ClientState, TryResult, TryRun } from "./api.js";
export type { TokenSource } from "./bearer.js";
export type { HeaderCarrier, ReceivedHeaders } from "./carrier.js";
export { type ConnectOptions, connect } from "./connect.js";
export type { Duration } from "./duration.js";
export type { CampaignOptions, LeadOptions } from "./election/campaign.js";
export type { Leadership } from "./election/leadership.js";
export type { Leader, ObserveOptions } from "./election/observe.js";
export { type ErrorCode, type KnotWait, LeaseholdError, type LostReason } from "./errors.js";
export type { Fence } from "./floor.js";
export type { Tls, TlsOptions } from "./grpc-transport.js";
export type { HistoryEntry, HistoryEvent, HistoryGrant, HistoryLock, HistoryMode } from "./history/event.js";
export type { RecordOptions } from "./history/recorder.js";
export { type RecordedClient, recordHistory } from "./history.js";
export { type Clock, TIMESTAMP_HEADER } from "./lamport.js";
export type { Lease } from "./lease.js";
export type { LeaseEvents, Lock, LockEvents, LockGrant, LockState } from "./lock.js";
export type { LockSet } from "./lock-set.js";
export type {
  AcquireAllOptions,
  AcquireOptions,
  LeaseOptions,
  LockSpec,
  ModeOptions,
  Permits,
  QueueView,
  TryOptions,
} from "./options.js";
export type { OpenTelemetry } from "./tracing.js";
export {
  compareVectors,
  decodeVector,
  encodeVector,
  mergeVectors,
  VECTOR_HEADER,
  type Vector,
  VectorClock,
  type VectorClockOptions,
  type VectorOrder,
} from "./vector-clock.js";
export type { Blocker, Busy, Holder, LockDescription, LockMode, LockSummary, Waiter } from "./views.js";
export type {
  WatchChanged,
  WatchEnded,
  WatchEvent,
  WatchGranted,
  WatchMoment,
  WatchQueue,
  WatchReset,
  WatchState,
  WatchSynced,
  WatchTransferred,
} from "./watch/events.js";
export type { WatchOptions, WatchTarget } from "./watch/watches.js";

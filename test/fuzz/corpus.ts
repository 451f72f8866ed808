/** Good messages of every method: what is mutated. */
import { encode, v1 } from "@leasehold/client/wire";

const lock = { name: "fuzz/1", mode: 1 };
const acquire = { ...lock, ttlMs: 900, waitMs: 50, requestId: "r1", owner: "o", metadata: Buffer.from("m") };

/** By path. */
export const unaryCorpus: readonly (readonly [path: string, bytes: Buffer])[] = [
  [
    "LeaseService/CreateLease",
    encode(v1.CreateLeaseRequest, { ttlMs: 900, owner: "o", wallClockMs: 1_700_000_000_000 }),
  ],
  ["LeaseService/RenewLease", encode(v1.RenewLeaseRequest, { leaseId: "L".repeat(22), progress: true })],
  ["LeaseService/RevokeLease", encode(v1.RevokeLeaseRequest, { leaseId: "L".repeat(22) })],
  ["LeaseService/GetLease", encode(v1.GetLeaseRequest, { leaseId: "L".repeat(22) })],
  ["LeaseService/ListLeases", encode(v1.ListLeasesRequest, { pageSize: 3, pageToken: "L000000001" })],
  ["LockService/Acquire", encode(v1.AcquireRequest, acquire)],
  ["LockService/Acquire", encode(v1.AcquireRequest, { ...acquire, mode: 3, permits: 2, permitLimit: 5, waitMs: 0 })],
  [
    "LockService/AcquireAll",
    encode(v1.AcquireAllRequest, { locks: [lock, { name: "fuzz/2", mode: 2 }], ttlMs: 900, requestId: "r2" }),
  ],
  ["LockService/CancelAcquire", encode(v1.CancelAcquireRequest, { requestId: "r1" })],
  ["LockService/Release", encode(v1.ReleaseRequest, { name: "fuzz/1", token: 7 })],
  ["LockService/Transfer", encode(v1.TransferRequest, { name: "fuzz/1", token: 7, ticketId: "T3" })],
  ["LockService/Downgrade", encode(v1.DowngradeRequest, { name: "fuzz/1", token: 7 })],
  ["LockService/SetMetadata", encode(v1.SetMetadataRequest, { name: "fuzz/1", token: 7, metadata: Buffer.from("x") })],
  ["LockService/DescribeLock", encode(v1.DescribeLockRequest, { name: "fuzz/1" })],
  ["LockService/ListLocks", encode(v1.ListLocksRequest, { prefix: "fuzz/", pageSize: 3 })],
  ["LockService/Validate", encode(v1.ValidateRequest, { name: "fuzz/1", token: 7 })],
  ["ClockService/Tick", encode(v1.TickRequest, { observed: 3, count: 2 })],
  ["AdminService/ForceRelease", encode(v1.ForceReleaseRequest, { name: "fuzz/1", reason: "fuzz", now: true })],
  ["AdminService/TopLocks", encode(v1.TopLocksRequest, { limit: 3 })],
  ["AdminService/Status", encode(v1.StatusRequest, {})],
];

const onSession = { ...lock, sessionLease: 1, waitMs: 50 };

/** Frames that come after a good Hello, the first of them with number 2. */
export const frameCorpus: readonly Buffer[] = [
  {
    frame: 2,
    commands: [
      { seq: 1, createLease: { ttlMs: 900, owner: "o" } },
      { seq: 2, acquire: { ...onSession, traceparent: `00-${"a".repeat(32)}-${"b".repeat(16)}-01` } },
    ],
  },
  { frame: 2, renew: true, ackedBelow: 1, acked: [3, 5], observed: 9, progress: [1], wallClockMs: 1_700_000_000_000 },
  { frame: 2, commands: [{ seq: 3, acquireAll: { locks: [lock], sessionLease: 1, waitMs: 9 } }] },
  { frame: 2, commands: [{ seq: 4, release: { name: "fuzz/1", token: 7 } }] },
  { frame: 2, commands: [{ seq: 5, cancelAcquire: { sessionAcquire: 2 } }] },
  {
    frame: 2,
    commands: [
      { seq: 6, revokeSessionLease: 1 },
      { seq: 7, abandonSessionLease: 1 },
    ],
  },
  {
    frame: 2,
    commands: [
      { seq: 8, describeLock: { name: "fuzz/1" } },
      { seq: 9, tick: { count: 3 } },
    ],
  },
].map((frame) => encode(v1.AttachRequest, frame));

export const helloCorpus: readonly Buffer[] = [
  { frame: 1, hello: { epoch: 1, client: "fuzz", owner: "o" } },
  {
    frame: 1,
    hello: { sessionId: "s".repeat(22), epoch: 2, claims: [1, 2], outstanding: [3], abandoned: [1], highestToken: 9 },
  },
].map((frame) => encode(v1.AttachRequest, frame));

export const watchCorpus: readonly Buffer[] = [
  { name: "fuzz/1", after: 3 },
  { prefix: "fuzz/", fromNow: true },
].map((request) => encode(v1.WatchRequest, request));

/** For the ops port. */
export const httpCorpus: readonly Buffer[] = [
  "GET /metrics HTTP/1.1\r\nHost: localhost\r\nAccept: text/plain\r\n\r\n",
  "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n",
  "HEAD /readyz HTTP/1.0\r\n\r\n",
  "GET /api/v1/locks?prefix=fuzz%2F&limit=3 HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer x\r\n\r\n",
  'POST /api/v1/locks/fuzz%2F1/force-release HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 11\r\n\r\n{"token":7}',
  "GET /api/v1/events HTTP/1.1\r\nHost: localhost\r\nLast-Event-ID: 3\r\n\r\n",
  "GET /../../etc/passwd HTTP/1.1\r\nHost: localhost\r\n\r\n",
  "POST /metrics HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
].map((text) => Buffer.from(text));

/** The beginning of an HTTP/2 connection: preface, settings, headers of a call, a ping. */
export const http2Corpus: readonly Buffer[] = [
  Buffer.concat([
    Buffer.from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    Buffer.from("000000040000000000", "hex"),
    Buffer.from("00000806000000000000010203040506ff", "hex"),
  ]),
  Buffer.concat([
    Buffer.from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    Buffer.from("000000040000000000", "hex"),
    Buffer.from("00000501040000000183864104616263", "hex"),
    Buffer.from("0000050001000000010000000000", "hex"),
  ]),
];

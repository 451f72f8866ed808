/** For each metric: what has to happen to a real server so that it moves. The table is complete, or its test fails. */
import { closeSync, openSync } from "node:fs";
import { join } from "node:path";
import { Metadata } from "@grpc/grpc-js";
import { onTestFinished } from "vitest";
import { encode, v1 } from "../../src/client/wire/index.js";
import { version } from "../../src/server/version.js";
import { until } from "../e2e/support.js";
import {
  block,
  deadlock,
  halt,
  hold,
  large,
  lease,
  pair,
  pairsWithoutEnd,
  wait,
  watch,
  watchWithoutReading,
} from "./acts.js";
import { restored } from "./restored.js";
import { authenticating, encrypting, issue, newToken, World } from "./world.js";

export interface Provocation {
  /** The series that moves, as far as it is to be told from others: `leasehold_grants_total{mode="shared"}`. */
  readonly series: string;
  /** From before to after. Default: it rises. */
  readonly moved?: (before: number | undefined, after: number | undefined) => boolean;
  /** The server for it. Default: an ordinary one. */
  readonly world?: () => Promise<World>;
  readonly act: (world: World) => unknown;
}

const is = (value: number) => (before: number | undefined, after: number | undefined) =>
  before !== value && after === value;
const byMoreThan =
  (least: number) =>
  (before = 0, after = 0) =>
    after - before > least;
const appeared = (before: number | undefined, after: number | undefined) => before === undefined && after !== undefined;

/** By metric. */
export const provocations: Readonly<Record<string, readonly Provocation[]>> = {
  leasehold_acquire_duration_seconds: [{ series: '_count{mode="exclusive",outcome="granted"}', act: pair }],
  leasehold_lock_hold_duration_seconds: [{ series: '_count{mode="exclusive",end="released"}', act: pair }],
  leasehold_grants_total: [
    { series: '{mode="exclusive"}', act: pair },
    { series: '{mode="shared"}', act: async (w) => (await w.connect()).acquire("a", { mode: "shared" }) },
    { series: '{mode="semaphore"}', act: async (w) => (await w.connect()).acquire("a", { permits: { of: 3 } }) },
  ],
  leasehold_deadlocks_total: [{ series: "", act: deadlock }],
  leasehold_deadlock_searches_cut_total: [
    { series: "", world: () => World.create({ limits: { deadlockSearchMax: 1 } }), act: deadlock },
  ],
  leasehold_watch_lagged_total: [{ series: "", act: watchWithoutReading }],
  leasehold_stale_tokens_total: [
    {
      series: '{rpc="Release"}',
      act: (w) =>
        w
          .unary()
          .call("Release", { name: "a", token: 7 })
          .catch(() => undefined),
    },
  ],
  leasehold_leases_created_total: [{ series: "", act: lease }],
  leasehold_lease_renewals_total: [
    {
      series: '{result="ok"}',
      act: async (w) => w.unary().call("RenewLease", { leaseId: (await lease(w)).lease?.leaseId as string }),
    },
    {
      series: '{result="unknown"}',
      act: (w) =>
        w
          .unary()
          .call("RenewLease", { leaseId: "x".repeat(22) })
          .catch(() => undefined),
    },
  ],
  leasehold_lease_ends_total: [
    {
      series: '{reason="revoked"}',
      act: async (w) => w.unary().call("RevokeLease", { leaseId: (await lease(w)).lease?.leaseId as string }),
    },
    { series: '{reason="expired"}', act: (w) => lease(w, 500) },
    {
      series: '{reason="hung"}',
      act: (w) => w.unary().call("CreateLease", { ttlMs: 60_000, progressEveryMs: 500 }),
    },
  ],
  leasehold_lease_restart_extension_seconds_total: [
    {
      series: "",
      act: async (w) => {
        await lease(w);
        await w.restart();
      },
    },
  ],
  leasehold_lease_renewal_slack_ratio: [
    {
      series: "_count",
      act: async (w) => w.unary().call("RenewLease", { leaseId: (await lease(w)).lease?.leaseId as string }),
    },
  ],
  leasehold_rpc_duration_seconds: [
    { series: '_count{rpc="Acquire",code="OK",transport="session"}', act: pair },
    { series: '_count{rpc="Release",code="OK",transport="session"}', act: pair },
    { series: '_count{rpc="Attach",code="OK",transport="session"}', act: pair },
    {
      series: '_count{rpc="AcquireAll",code="OK",transport="session"}',
      act: async (w) => (await w.connect()).acquireAll(["a", "b"]),
    },
    { series: '_count{rpc="CreateLease",code="OK",transport="unary"}', act: lease },
    {
      series: '_count{rpc="Release",code="FAILED_PRECONDITION",transport="unary"}',
      act: (w) =>
        w
          .unary()
          .call("Release", { name: "a", token: 7 })
          .catch(() => undefined),
    },
  ],
  leasehold_requests_refused_total: [
    {
      series: '{reason="INVALID"}',
      act: (w) =>
        w
          .unary()
          .call("CreateLease", { ttlMs: 1 })
          .catch(() => undefined),
    },
  ],
  leasehold_auth_failures_total: [
    {
      series: '{reason="missing"}',
      world: authenticating,
      act: (w) =>
        w
          .unary()
          .call("Tick", {})
          .catch(() => undefined),
    },
    {
      series: '{reason="unknown"}',
      world: authenticating,
      act: (w) => w.connect({ token: "lh_wrong", timeout: "1s" }).catch(() => undefined),
    },
    {
      series: '{reason="malformed"}',
      world: authenticating,
      act: (w) => w.attach({}, { authorization: "Basic eA==" }),
    },
    {
      series: '{reason="expired"}',
      world: authenticating,
      act: async (w) => {
        w.attach({}, { authorization: `Bearer ${w.token}` });
        await until(async () => (await w.scrape()).get("leasehold_sessions_created_total") === 1);
        w.token = newToken(w.folder); // the other one is withdrawn under the open stream
        await w.server.reload();
      },
    },
    {
      series: '{reason="denied"}',
      world: authenticating,
      act: async (w) => {
        const client = await w.connect({ token: w.token });
        await client.acquire("a");
        const metadata = new Metadata();
        metadata.set("authorization", `Bearer ${w.token}`);
        await w
          .unary()
          .call("ForceRelease", { name: "a" }, undefined, metadata)
          .catch(() => undefined);
      },
    },
  ],
  leasehold_sessions_created_total: [{ series: "", act: pair }],
  leasehold_session_resumes_total: [
    { series: '{result="unknown"}', act: (w) => w.attach({ sessionId: "x".repeat(22), epoch: 2 }) },
    {
      series: '{result="resumed"}',
      act: async (w) => {
        await hold(w);
        w.server.sessions.closeAll({ reason: "CLOSED", message: "", retryAfterMs: 0 });
      },
    },
  ],
  leasehold_lamport_jumps_refused_total: [
    {
      series: "",
      act: (w) =>
        w
          .unary()
          .call("Tick", { observed: 2 ** 50 })
          .catch(() => undefined),
    },
  ],
  leasehold_journal_commit_duration_seconds: [{ series: "_count", act: pair }],
  leasehold_journal_batch_commands: [{ series: "_sum", act: pair }],
  leasehold_journal_checkpoint_duration_seconds: [{ series: "_count", act: pair }],
  leasehold_journal_errors_total: [
    {
      series: '{operation="append"}',
      act: (w) => {
        w.failing = true;
      },
    },
  ],
  leasehold_sequencer_queue_duration_seconds: [{ series: "_count", act: pair }],
  leasehold_event_loop_lag_seconds: [{ series: "_count", act: () => undefined }],
  leasehold_event_loop_stalls_total: [{ series: "", act: () => block(250) }],
  leasehold_halts_total: [{ series: "", act: halt }],
  leasehold_build_info: [
    {
      series: `{version="${version}",node="${process.version}",store="memory"}`,
      moved: appeared,
      act: (w) => w.restart({ store: "memory:" }),
    },
  ],
  leasehold_leases: [
    { series: '{state="live"}', act: lease },
    // Its 2,000 locks are freed by slices of one.
    {
      series: '{state="ending"}',
      world: () => World.create({ limits: { expirySliceMax: 1 } }),
      act: async (w) => {
        const client = await w.connect();
        const of = await client.lease();
        await Promise.all(Array.from({ length: 2_000 }, (_, i) => client.acquire(`many/${i}`, { lease: of })));
        void of.revoke();
      },
    },
  ],
  leasehold_locks_held: [{ series: '{mode="exclusive"}', act: hold }],
  leasehold_locks_known: [{ series: "", act: hold }],
  leasehold_lock_waiters: [{ series: "", act: wait }],
  leasehold_lock_oldest_wait_seconds: [{ series: "", act: wait }],
  leasehold_lock_oldest_hold_seconds: [{ series: "", act: hold }],
  leasehold_watchers: [
    {
      series: "",
      act: async (w) => {
        await watch(w);
      },
    },
  ],
  leasehold_client_clock_offset_max_seconds: [
    {
      series: "",
      act: (w) => w.unary().call("CreateLease", { ttlMs: 60_000, wallClockMs: Date.now() + 3_600_000 }),
    },
  ],
  leasehold_clients_clock_skewed: [
    {
      series: "",
      act: (w) => w.unary().call("CreateLease", { ttlMs: 60_000, wallClockMs: Date.now() + 3_600_000 }),
    },
  ],
  leasehold_clients_clock_measured: [
    { series: "", act: (w) => w.unary().call("CreateLease", { ttlMs: 60_000, wallClockMs: Date.now() }) },
  ],
  leasehold_last_token: [{ series: "", act: pair }],
  leasehold_lamport_timestamp: [{ series: "", act: pair }],
  leasehold_restore_quiet_seconds: [{ series: "", act: restored }],
  leasehold_halted: [{ series: "", moved: is(1), act: halt }],
  leasehold_sequencer_queue_commands: [
    {
      series: "",
      act: (w) => {
        w.journal.delayMs = 2_000;
        void lease(w).catch(() => undefined);
      },
    },
  ],
  leasehold_journal_up: [
    {
      series: "",
      moved: is(0),
      act: (w) => {
        w.failing = true;
      },
    },
  ],
  // An idle server writes as well, but not that much.
  leasehold_journal_log_bytes: [
    {
      series: "",
      moved: byMoreThan(100_000),
      // A checkpoint follows within a second: looked at meanwhile.
      act: (w) => void large(w).catch(() => undefined),
    },
  ],
  leasehold_journal_checkpoint_lag_records: [{ series: "", moved: byMoreThan(20), act: pairsWithoutEnd }],
  leasehold_journal_written_bytes_total: [{ series: "", moved: byMoreThan(100_000), act: large }],
  leasehold_leader: [
    {
      series: "",
      moved: is(0),
      act: (w) => {
        w.failing = true;
      },
    },
  ],
  leasehold_draining: [
    {
      series: "",
      moved: is(1),
      world: () => World.create({ drainMsMax: 5_000 }),
      act: async (w) => {
        await hold(w);
        w.journal.delayMs = 3_000; // what is under way is awaited
        void lease(w).catch(() => undefined);
        void w.server.stop();
      },
    },
  ],
  leasehold_sessions: [
    { series: '{state="attached"}', act: hold },
    {
      series: '{state="detached"}',
      act: async (w) => {
        const stream = w.attach({});
        stream.write(encode(v1.AttachRequest, { frame: 2, commands: [{ seq: 1, createLease: { ttlMs: 60_000 } }] }));
        // Without a lease there would be nothing to come back for.
        await until(async () => (await w.scrape()).get('leasehold_leases{state="live"}') === 1);
        stream.cancel();
      },
    },
  ],
  leasehold_limit_used_ratio: [
    { series: '{limit="leasesMax"}', act: lease },
    { series: '{limit="locksMax"}', act: hold },
    { series: '{limit="sessionsMax"}', act: hold },
    { series: '{limit="streamsMax"}', act: hold },
    {
      series: '{limit="requestsRememberedMax"}',
      act: async (w) => {
        const { grant } = await w.unary().acquire({ name: "a", ttlMs: 60_000, requestId: "0123456789abcdef" });
        await w.unary().call("Release", { name: "a", token: grant?.token as number });
      },
    },
    {
      series: '{limit="callsMax"}',
      act: async (w) => {
        await hold(w);
        void w
          .unary()
          .acquire({ name: "a", ttlMs: 60_000, waitMs: 20_000, requestId: "waits" })
          .catch(() => undefined);
      },
    },
    {
      series: '{limit="watchersMax"}',
      act: async (w) => {
        await watch(w);
      },
    },
    {
      series: '{limit="commandsInFlightMax"}',
      act: (w) => {
        w.journal.delayMs = 2_000;
        void lease(w).catch(() => undefined);
      },
    },
    {
      series: '{limit="openFiles"}',
      moved: (before = 0, after = 0) => after > 1.5 * before,
      act: async (w) => {
        const files = Array.from({ length: 300 }, () => openSync("/dev/null", "r"));
        onTestFinished(() => {
          for (const file of files) closeSync(file);
        });
        await w.restart(); // it looks at its start, and then every ten seconds
      },
    },
  ],
  leasehold_store_free_bytes: [
    {
      series: "",
      moved: appeared,
      world: () => World.create({ store: "memory:" }),
      act: (w) => w.restart({ store: `level:${join(w.folder, "store")}` }),
    },
  ],
  leasehold_tls_certificate_expiry_timestamp_seconds: ["grpc", "ops"].map((listener) => ({
    series: `{listener="${listener}"}`,
    world: encrypting,
    act: async (w) => {
      await issue(w, 48);
      await w.server.reload();
    },
  })),
};

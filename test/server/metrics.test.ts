import { execFileSync, spawnSync } from "node:child_process";
import { describe, expect, it } from "vitest";
import type { CoreEvent, Counts, HoldFacts, WaiterView } from "../../src/server/core/types.js";
import { Accumulator } from "../../src/server/metrics/accumulators.js";
import { LoopLag } from "../../src/server/metrics/loop-lag.js";
import { type GaugeSnapshot, ServerMetrics } from "../../src/server/metrics/server-metrics.js";

const counts: Counts = {
  leases: 3,
  leasesEnding: 1,
  locks: 4,
  holds: 5,
  heldExclusive: 2,
  heldShared: 1,
  heldSemaphore: 2,
  oldestHoldMs: 4_500,
  oldestWaitMs: 1_250,
  waiters: 6,
  sessions: 7,
  requestsRemembered: 0,
  lastToken: 8,
  timestamp: 9,
  incarnation: 1,
  halted: "",
};

const idle: GaugeSnapshot = {
  counts,
  sessionsAttached: 0,
  commandsQueued: 0,
  journalUp: true,
  draining: false,
  leader: true,
  watchers: 0,
  limits: [],
  certificates: [],
  resources: {},
};

const hold: HoldFacts = {
  token: 1,
  timestamp: 2,
  owner: "",
  metadata: "",
  mode: "shared",
  permits: 0,
  permitLimit: 0,
  slots: [],
  leaseDisplayId: "d",
  contenderId: "",
};
const waiter: WaiterView = {
  ticketId: "T1",
  position: 1,
  owner: "",
  metadata: "",
  waitedMs: 3,
  attached: true,
  mode: "shared",
  permits: 0,
  permitLimit: 0,
  locks: 1,
  contenderId: "",
  blockedBy: null,
};
const modes = ["exclusive", "shared", "semaphore"] as const;

function create(snapshot: () => GaugeSnapshot = () => idle): ServerMetrics {
  return new ServerMetrics({ version: "1.2.3", store: "level", snapshot, processMetrics: false });
}

/** All series, by name and labels as Prometheus writes them. */
async function scrape(metrics: ServerMetrics): Promise<Map<string, number>> {
  const series = new Map<string, number>();
  for (const line of (await metrics.render()).split("\n")) {
    if (line === "" || line.startsWith("#")) continue;
    const space = line.lastIndexOf(" ");
    expect(series.has(line.slice(0, space)), line).toBe(false);
    series.set(line.slice(0, space), Number(line.slice(space + 1)));
  }
  return series;
}

/** What `act` changes, without the buckets. */
async function changes(metrics: ServerMetrics, act: () => void): Promise<Record<string, number>> {
  const before = await scrape(metrics);
  act();
  const after = await scrape(metrics);
  const changed: Record<string, number> = {};
  for (const [name, value] of after) {
    const delta = value - (before.get(name) ?? 0);
    if (delta !== 0 && !name.includes("_bucket{")) changed[name] = delta;
  }
  return changed;
}

describe("every event of the core moves its metric, and no other", () => {
  const cases: [CoreEvent, Record<string, number>][] = [
    ...modes.map((mode): [CoreEvent, Record<string, number>] => [
      {
        kind: "granted",
        name: "a",
        timestamp: 2,
        token: 1,
        mode,
        waitedMs: 250,
        ticketId: "",
        transferredFrom: 0,
        hold: { ...hold, mode },
      },
      {
        [`leasehold_acquire_duration_seconds_sum{mode="${mode}",outcome="granted"}`]: 0.25,
        [`leasehold_acquire_duration_seconds_count{mode="${mode}",outcome="granted"}`]: 1,
        [`leasehold_grants_total{mode="${mode}"}`]: 1,
      },
    ]),
    ...modes.flatMap((mode) =>
      (["busy", "timeout", "cancelled", "expired", "deadlock"] as const).map(
        (outcome): [CoreEvent, Record<string, number>] => [
          { kind: "acquireEnded", outcome, mode, waitedMs: 2_000 },
          {
            [`leasehold_acquire_duration_seconds_sum{mode="${mode}",outcome="${outcome}"}`]: 2,
            [`leasehold_acquire_duration_seconds_count{mode="${mode}",outcome="${outcome}"}`]: 1,
          },
        ],
      ),
    ),
    ...modes.flatMap((mode) =>
      (
        ["released", "expired", "revoked", "cancelled", "undelivered", "transferred", "max_hold", "forced"] as const
      ).map((end): [CoreEvent, Record<string, number>] => [
        { kind: "holdEnded", name: "a", timestamp: 3, token: 1, mode, end, heldMs: 500, message: "" },
        {
          [`leasehold_lock_hold_duration_seconds_sum{mode="${mode}",end="${end}"}`]: 0.5,
          [`leasehold_lock_hold_duration_seconds_count{mode="${mode}",end="${end}"}`]: 1,
        },
      ]),
    ),
    [{ kind: "queued", name: "a", timestamp: 1, waiter }, {}],
    [{ kind: "dequeued", name: "a", timestamp: 1, waiter }, {}],
    ...(["downgraded", "updated", "revoking"] as const).map((kind): [CoreEvent, Record<string, number>] => [
      { kind, name: "a", timestamp: 1, token: 1, message: "", hold },
      {},
    ]),
    [{ kind: "deadlock", knot: [] }, { leasehold_deadlocks_total: 1 }],
    [{ kind: "deadlockSearchCut" }, { leasehold_deadlock_searches_cut_total: 1 }],
    [{ kind: "leaseExtended", extensionMs: 1_500 }, { leasehold_lease_restart_extension_seconds_total: 1.5 }],
    [{ kind: "leaseCreated" }, { leasehold_leases_created_total: 1 }],
    [
      { kind: "leaseRenewed", result: "ok", slackRatio: 0.5 },
      {
        'leasehold_lease_renewals_total{result="ok"}': 1,
        leasehold_lease_renewal_slack_ratio_sum: 0.5,
        leasehold_lease_renewal_slack_ratio_count: 1,
      },
    ],
    [
      { kind: "leaseRenewed", result: "unknown", slackRatio: 0 },
      { 'leasehold_lease_renewals_total{result="unknown"}': 1 },
    ],
    [{ kind: "leaseEnded", reason: "expired", hung: false }, { 'leasehold_lease_ends_total{reason="expired"}': 1 }],
    [{ kind: "leaseEnded", reason: "expired", hung: true }, { 'leasehold_lease_ends_total{reason="hung"}': 1 }],
    [{ kind: "leaseEnded", reason: "revoked", hung: false }, { 'leasehold_lease_ends_total{reason="revoked"}': 1 }],
    ...(
      [
        ["release", "Release"],
        ["transfer", "Transfer"],
        ["downgrade", "Downgrade"],
        ["setMetadata", "SetMetadata"],
      ] as const
    ).map(([rpc, label]): [CoreEvent, Record<string, number>] => [
      { kind: "staleToken", rpc },
      { [`leasehold_stale_tokens_total{rpc="${label}"}`]: 1 },
    ]),
    [{ kind: "clockJumpRefused" }, { leasehold_lamport_jumps_refused_total: 1 }],
    [{ kind: "sessionAttached", result: "new" }, { leasehold_sessions_created_total: 1 }],
    ...(["resumed", "unknown", "stale"] as const).map((result): [CoreEvent, Record<string, number>] => [
      { kind: "sessionAttached", result },
      { [`leasehold_session_resumes_total{result="${result}"}`]: 1 },
    ]),
    [{ kind: "halted", why: "token regression" }, { leasehold_halts_total: 1 }],
  ];
  for (const [event, expected] of cases) {
    it(JSON.stringify(event), async () => {
      const metrics = create();
      expect(await changes(metrics, () => metrics.event(event))).toEqual(expected);
    });
  }
});

describe("measurements", () => {
  it("of the journal", async () => {
    const metrics = create();
    const moved = await changes(metrics, () => {
      metrics.journalCommit(0.002, 37);
      metrics.journalObserver.checkpoint?.(0.5);
      metrics.journalObserver.error?.("append", new Error("ENOSPC"));
    });
    expect(moved).toEqual({
      leasehold_journal_commit_duration_seconds_sum: 0.002,
      leasehold_journal_commit_duration_seconds_count: 1,
      leasehold_journal_batch_commands_sum: 37,
      leasehold_journal_batch_commands_count: 1,
      leasehold_journal_checkpoint_duration_seconds_sum: 0.5,
      leasehold_journal_checkpoint_duration_seconds_count: 1,
      'leasehold_journal_errors_total{operation="append"}': 1,
    });
  });

  it("of requests, by path, code and transport", async () => {
    const metrics = create();
    const moved = await changes(metrics, () => {
      metrics.rpc("/leasehold.v1.LockService/Acquire", "OK", 1_000);
      metrics.rpc("/leasehold.v1.LockService/Release", "STALE_TOKEN", 2_000);
      metrics.rpc("Release", "CLUSTER_MISMATCH", 1_000); // another reason with the same code
      metrics.sessionRpc("Acquire", "OK", 1_000);
      metrics.rpc("/evil/Name", "INVALID", 0);
      metrics.rpc("/evil/Other", "INVALID", 0);
      metrics.refused("LIMIT");
    });
    const of = (rpc: string, code: string, transport: string) =>
      `{rpc="${rpc}",code="${code}",transport="${transport}"}`;
    const name = "leasehold_rpc_duration_seconds";
    expect(moved).toEqual({
      [`${name}_sum${of("Acquire", "OK", "unary")}`]: 1,
      [`${name}_count${of("Acquire", "OK", "unary")}`]: 1,
      [`${name}_sum${of("Acquire", "OK", "session")}`]: 1,
      [`${name}_count${of("Acquire", "OK", "session")}`]: 1,
      [`${name}_sum${of("Release", "FAILED_PRECONDITION", "unary")}`]: 3,
      [`${name}_count${of("Release", "FAILED_PRECONDITION", "unary")}`]: 2,
      [`${name}_count${of("other", "INVALID_ARGUMENT", "unary")}`]: 2,
      'leasehold_requests_refused_total{reason="STALE_TOKEN"}': 1,
      'leasehold_requests_refused_total{reason="CLUSTER_MISMATCH"}': 1,
      'leasehold_requests_refused_total{reason="INVALID"}': 2,
      'leasehold_requests_refused_total{reason="LIMIT"}': 1,
    });
  });

  it("of watching", async () => {
    const metrics = create();
    expect(await changes(metrics, () => metrics.watchLagged())).toEqual({ leasehold_watch_lagged_total: 1 });
  });

  it("of every rpc by its own name", async () => {
    const metrics = create();
    const names = ["AcquireAll", "Transfer", "Downgrade", "SetMetadata", "ForceRelease", "TopLocks", "Watch"];
    const moved = await changes(metrics, () => {
      for (const name of names) metrics.rpc(`/leasehold.v1.S/${name}`, "OK", 1_000);
      metrics.rpc("Transfer", "NOT_WAITING", 1_000);
      metrics.rpc("AcquireAll", "DEADLOCK", 1_000);
    });
    for (const name of names) {
      const series = `leasehold_rpc_duration_seconds_count{rpc="${name}",code="OK",transport="unary"}`;
      expect(moved[series], name).toBe(1);
    }
    expect(moved).toMatchObject({
      'leasehold_rpc_duration_seconds_count{rpc="Transfer",code="FAILED_PRECONDITION",transport="unary"}': 1,
      'leasehold_rpc_duration_seconds_count{rpc="AcquireAll",code="ABORTED",transport="unary"}': 1,
      'leasehold_requests_refused_total{reason="NOT_WAITING"}': 1,
      'leasehold_requests_refused_total{reason="DEADLOCK"}': 1,
    });
  });

  it("of the queue and the event loop", async () => {
    const metrics = create();
    const moved = await changes(metrics, () => {
      metrics.queueWait(0.004);
      metrics.lag(0.1);
      metrics.lag(0.4);
    });
    expect(moved).toEqual({
      leasehold_sequencer_queue_duration_seconds_sum: 0.004,
      leasehold_sequencer_queue_duration_seconds_count: 1,
      leasehold_event_loop_lag_seconds_sum: 0.5,
      leasehold_event_loop_lag_seconds_count: 2,
      leasehold_event_loop_stalls_total: 1,
    });
  });
});

describe("gauges", () => {
  it("show the snapshot of the scrape", async () => {
    let taken = 0;
    const series = await scrape(
      create(() => {
        taken++;
        return {
          counts: { ...counts, halted: "why" },
          sessionsAttached: 2,
          commandsQueued: 11,
          journalUp: false,
          journal: { writtenBytes: 100, logBytes: 200, checkpointLagRecords: 300 },
          draining: true,
          leader: false,
          watchers: 12,
          limits: [{ limit: "limits.locksMax", used: 3, max: 12 }],
          certificates: [{ listener: "ops", subject: "CN=a", notAfterMs: 1_500_000 }],
          resources: { storeFreeBytes: 4_096, openFiles: 20, openFilesMax: 80 },
          clocks: { measured: 13, skewed: 14, certainMsMax: 15_500 },
        };
      }),
    );
    expect(taken).toBe(1);
    expect(Object.fromEntries(series)).toMatchObject({
      'leasehold_leases{state="live"}': 2,
      'leasehold_leases{state="ending"}': 1,
      leasehold_locks_known: 4,
      'leasehold_locks_held{mode="exclusive"}': 2,
      'leasehold_locks_held{mode="shared"}': 1,
      'leasehold_locks_held{mode="semaphore"}': 2,
      leasehold_lock_oldest_hold_seconds: 4.5,
      leasehold_lock_oldest_wait_seconds: 1.25,
      leasehold_watchers: 12,
      leasehold_clients_clock_measured: 13,
      leasehold_clients_clock_skewed: 14,
      leasehold_client_clock_offset_max_seconds: 15.5,
      leasehold_lock_waiters: 6,
      'leasehold_sessions{state="attached"}': 2,
      'leasehold_sessions{state="detached"}': 5,
      leasehold_last_token: 8,
      leasehold_lamport_timestamp: 9,
      leasehold_halted: 1,
      leasehold_sequencer_queue_commands: 11,
      leasehold_journal_up: 0,
      leasehold_journal_written_bytes_total: 100,
      leasehold_journal_log_bytes: 200,
      leasehold_journal_checkpoint_lag_records: 300,
      leasehold_draining: 1,
      leasehold_leader: 0,
      'leasehold_limit_used_ratio{limit="locksMax"}': 0.25,
      'leasehold_limit_used_ratio{limit="openFiles"}': 0.25,
      'leasehold_tls_certificate_expiry_timestamp_seconds{listener="ops"}': 1_500,
      leasehold_store_free_bytes: 4_096,
      [`leasehold_build_info{version="1.2.3",node="${process.version}",store="level"}`]: 1,
    });
  });

  it("are absent, not zero, while the state is recovered", async () => {
    const names = [...(await scrape(create(() => ({ ...idle, counts: undefined })))).keys()];
    expect(
      names.filter((name) =>
        /leases\{|locks_(held|known)|lock_(waiters|oldest)|last_token|log_bytes|sessions\{|lamport_timestamp/.test(
          name,
        ),
      ),
    ).toEqual([]);
    expect(names).toContain("leasehold_journal_up");
  });

  it("tell no offset of clocks while no client tells its clock", async () => {
    const series = await scrape(
      create(() => ({ ...idle, clocks: { measured: 0, skewed: 0, certainMsMax: undefined } })),
    );
    expect(series.get("leasehold_clients_clock_skewed")).toBe(0);
    expect([...series.keys()]).not.toContain("leasehold_client_clock_offset_max_seconds");
  });

  it("belong to their own server", async () => {
    const [one, two] = [create(), create()];
    one.event({ kind: "leaseCreated" });
    expect((await scrape(two)).get("leasehold_leases_created_total")).toBe(0);
  });
});

describe("an accumulator", () => {
  it("counts a value at a bound into that bucket, as Prometheus does", () => {
    const a = new Accumulator([1, 2, 5]);
    for (const value of [0, -1, 0.5, 1, 1.5, 2, 5, 5.1, Number.POSITIVE_INFINITY, Number.NaN]) a.observe(value);
    expect([...a.counts]).toEqual([4, 2, 1, 2]);
    expect(a.count).toBe(9);
  });

  it("becomes cumulative buckets", async () => {
    const metrics = create();
    for (const commands of [1, 3, 3, 100_000]) metrics.journalCommit(0, commands);
    const series = await scrape(metrics);
    const bucket = (le: string) => series.get(`leasehold_journal_batch_commands_bucket{le="${le}"}`);
    expect([bucket("1"), bucket("2"), bucket("4"), bucket("16384"), bucket("+Inf")]).toEqual([1, 1, 3, 3, 4]);
  });
});

it("the lag of the event loop is by how much the timer was late", () => {
  const lags: number[] = [];
  const lag = new LoopLag((seconds) => lags.push(seconds));
  lag.sample(0);
  lag.sample(50);
  lag.sample(90);
  lag.sample(440);
  lag.stop();
  expect(lags).toEqual([0, 0, 0, 0.3]);
  expect(lag.smoothedSeconds).toBeCloseTo(0.03);
  for (let ms = 790; ms < 790 + 60 * 350; ms += 350) lag.sample(ms); // always 300 ms late
  expect(lag.smoothedSeconds).toBeCloseTo(0.3, 2);
});

describe("the exposition", () => {
  it("follows the naming rules of Prometheus", async () => {
    const metrics = create();
    metrics.rpc("Acquire", "OK", 1);
    const text = await metrics.render();
    const types = new Map([...text.matchAll(/^# TYPE (\S+) (\S+)$/gm)].map(([, name = "", type = ""]) => [name, type]));
    const helps = new Map([...text.matchAll(/^# HELP (\S+) (.+)$/gm)].map(([, name = "", help = ""]) => [name, help]));
    expect(types.size).toBeGreaterThan(35);
    for (const [name, type] of types) {
      expect(name).toMatch(/^leasehold_[a-z]+(_[a-z]+)*$/);
      expect(name.endsWith("_total"), name).toBe(type === "counter");
      expect(name, name).not.toMatch(/_(count|sum|bucket|info)$(?<!build_info)/);
      expect(name, name).not.toMatch(/_(ms|milliseconds|minutes|hours|kb|kib|mb|counter|gauge|histogram)(_|$)/);
      if (/duration|lag_|delay/.test(name) && type === "histogram") expect(name).toMatch(/_seconds$/);
      expect(helps.get(name), name).toMatch(/^[A-Z0-9].{10,}\.$/);
    }
    const labels = new Set([...text.matchAll(/[{,]([a-z_]+)="/g)].map(([, label]) => label));
    const known = "code end le mode node operation outcome reason result rpc state store transport version";
    expect([...labels].sort().join(" ")).toBe(known);
  });

  it("tells about the process too, unless told otherwise", async () => {
    const metrics = new ServerMetrics({ version: "1", store: "memory", snapshot: () => idle });
    expect(await metrics.render()).toContain("\nprocess_resident_memory_bytes ");
    expect(await create().render()).not.toContain("process_");
  });

  const promtool = spawnSync("promtool", ["--version"]).status === 0;
  it(`pleases promtool${promtool ? "" : " (not installed: not asked)"}`, async (context) => {
    if (!promtool) return context.skip("promtool is not on the PATH");
    const metrics = create();
    metrics.rpc("Acquire", "OK", 1);
    const input = await metrics.render();
    expect(execFileSync("promtool", ["check", "metrics"], { input, encoding: "utf8" })).toBe("");
  });
});

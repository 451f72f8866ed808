/** Names, help texts and labels of all metrics: how the numbers of `ServerMetrics` look to Prometheus. */
import { status } from "@grpc/grpc-js";
import client from "prom-client";
import { codeOf } from "../rpc/errors.js";
import type { Accumulator, Count } from "./accumulators.js";
import { Exposition, type Labels, NO_LABELS } from "./expose.js";
import type { GaugeSnapshot, ServerMetrics, ServerMetricsOptions } from "./server-metrics.js";

type Series<T> = () => Iterable<readonly [Labels, T]>;

const counted =
  (cell: Count): Series<number> =>
  () => [[NO_LABELS, cell.value]];

const countedBy =
  (label: string, cells: Readonly<Record<string, Count>>): Series<number> =>
  () =>
    Object.entries(cells).map(([value, cell]) => [{ [label]: value }, cell.value] as const);

const measured =
  (accumulator: Accumulator): Series<Accumulator> =>
  () => [[NO_LABELS, accumulator]];

const measuredBy =
  (label: string, modes: Readonly<Record<string, Readonly<Record<string, Accumulator>>>>): Series<Accumulator> =>
  () =>
    Object.entries(modes).flatMap(([mode, cells]) =>
      Object.entries(cells).map(([value, accumulator]) => [{ mode, [label]: value }, accumulator] as const),
    );

export function registerAll(
  metrics: ServerMetrics,
  options: ServerMetricsOptions,
  now: () => GaugeSnapshot,
): client.Registry {
  const exposition = new Exposition();
  registerLocks(exposition, metrics);
  registerLeases(exposition, metrics);
  registerTransport(exposition, metrics);
  registerJournal(exposition, metrics);
  registerProcess(exposition, metrics, options);
  registerGauges(exposition, now);
  registerBounds(exposition, now);
  if (options.processMetrics !== false) client.collectDefaultMetrics({ register: exposition.registry });
  return exposition.registry;
}

function registerLocks(to: Exposition, metrics: ServerMetrics): void {
  to.histogram({
    name: "leasehold_acquire_duration_seconds",
    help: "From the arrival of an acquire to its end: granted (each lock of several counts), busy, or given up.",
    labels: ["mode", "outcome"],
    series: measuredBy("outcome", metrics.acquires),
  });
  to.histogram({
    name: "leasehold_lock_hold_duration_seconds",
    help: "From a grant to its end, by how it ended.",
    labels: ["mode", "end"],
    series: measuredBy("end", metrics.holds),
  });
  to.counter({
    name: "leasehold_grants_total",
    help: "Grants, each with a new token.",
    labels: ["mode"],
    series: () => Object.entries(metrics.acquires).map(([mode, { granted }]) => [{ mode }, granted.count] as const),
  });
  to.counter({
    name: "leasehold_deadlocks_total",
    help: "Waits that were refused because they would have waited for each other.",
    series: counted(metrics.deadlocks),
  });
  to.counter({
    name: "leasehold_deadlock_searches_cut_total",
    help: "Searches for a deadlock that were given up at their limit; the wait went on.",
    series: counted(metrics.deadlockSearchesCut),
  });
  to.counter({
    name: "leasehold_watch_lagged_total",
    help: "Times that a watcher fell behind and had to begin anew.",
    series: counted(metrics.watchesLagged),
  });
  to.counter({
    name: "leasehold_stale_tokens_total",
    help: "Requests with a token that no longer held its lock.",
    labels: ["rpc"],
    series: countedBy("rpc", metrics.staleTokens),
  });
}

function registerLeases(to: Exposition, metrics: ServerMetrics): void {
  to.counter({
    name: "leasehold_leases_created_total",
    help: "Leases that were created.",
    series: counted(metrics.leasesCreated),
  });
  to.counter({
    name: "leasehold_lease_renewals_total",
    help: "Renewals of a lease, by whether it was still alive.",
    labels: ["result"],
    series: countedBy("result", metrics.renewals),
  });
  to.counter({
    name: "leasehold_lease_ends_total",
    help: "Leases that ended; hung ones were renewed, but their holders reported no progress.",
    labels: ["reason"],
    series: countedBy("reason", metrics.leaseEnds),
  });
  to.counter({
    name: "leasehold_lease_restart_extension_seconds_total",
    help: "By how much leases may outlive what was promised because the server was restarted, all together.",
    series: counted(metrics.leaseExtensionSeconds),
  });
  to.histogram({
    name: "leasehold_lease_renewal_slack_ratio",
    help: "What was left of a lease when it was renewed, as a share of its TTL. Near zero: leases are about to be lost.",
    series: measured(metrics.renewalSlack),
  });
}

function registerTransport(to: Exposition, metrics: ServerMetrics): void {
  to.histogram({
    name: "leasehold_rpc_duration_seconds",
    help: "From the arrival of a request to its answer, long polls included.",
    labels: ["rpc", "code", "transport"],
    series: () => rpcSeries(metrics),
  });
  to.counter({
    name: "leasehold_requests_refused_total",
    help: "Requests that were answered with an error.",
    labels: ["reason"],
    series: countedBy("reason", metrics.refusals),
  });
  to.counter({
    name: "leasehold_auth_failures_total",
    help: "Times that a caller was turned away, for its credentials or, as denied, for what it asked for.",
    labels: ["reason"],
    series: countedBy("reason", metrics.authFailures),
  });
  to.counter({
    name: "leasehold_sessions_created_total",
    help: "Sessions that were begun.",
    series: counted(metrics.sessionsCreated),
  });
  to.counter({
    name: "leasehold_session_resumes_total",
    help: "Attempts to resume a session after its stream broke.",
    labels: ["result"],
    series: countedBy("result", metrics.sessionResumes),
  });
  to.counter({
    name: "leasehold_lamport_jumps_refused_total",
    help: "Observed timestamps that were too far ahead of the server to be taken.",
    series: counted(metrics.clockJumpsRefused),
  });
}

/** Several reasons share a code: their histograms are added up. */
function rpcSeries(metrics: ServerMetrics): [Labels, Accumulator][] {
  const series: [Labels, Accumulator][] = [];
  for (const [rpc, transports] of Object.entries(metrics.rpcs)) {
    for (const [transport, byReason] of Object.entries(transports)) {
      const byCode = new Map<string, Accumulator>();
      for (const [reason, accumulator] of byReason) {
        const code = reason === "OK" ? "OK" : status[codeOf(reason)];
        const before = byCode.get(code);
        byCode.set(code, before ? before.plus(accumulator) : accumulator);
      }
      for (const [code, accumulator] of byCode) series.push([{ rpc, code, transport }, accumulator]);
    }
  }
  return series;
}

function registerJournal(to: Exposition, metrics: ServerMetrics): void {
  to.histogram({
    name: "leasehold_journal_commit_duration_seconds",
    help: "How long it took to make a record durable.",
    series: measured(metrics.commits),
  });
  to.histogram({
    name: "leasehold_journal_batch_commands",
    help: "Commands that became durable with one record.",
    series: measured(metrics.batches),
  });
  to.histogram({
    name: "leasehold_journal_checkpoint_duration_seconds",
    help: "How long it took to write one step of the checkpoint.",
    series: measured(metrics.checkpoints),
  });
  to.counter({
    name: "leasehold_journal_errors_total",
    help: "Operations of the store that failed.",
    labels: ["operation"],
    series: countedBy("operation", metrics.journalErrors),
  });
}

function registerProcess(to: Exposition, metrics: ServerMetrics, options: ServerMetricsOptions): void {
  to.histogram({
    name: "leasehold_sequencer_queue_duration_seconds",
    help: "How long the first command of a batch waited until the append of that batch began.",
    series: measured(metrics.queued),
  });
  to.histogram({
    name: "leasehold_event_loop_lag_seconds",
    help: "By how much a timer was late, sampled every 50 ms.",
    series: measured(metrics.loopLag),
  });
  to.counter({
    name: "leasehold_event_loop_stalls_total",
    help: "Times that the event loop was more than 100 ms late.",
    series: counted(metrics.loopStalls),
  });
  to.counter({
    name: "leasehold_halts_total",
    help: "Times that the server stopped granting because what a client has seen contradicts its store.",
    series: counted(metrics.halts),
  });
  const { version, store } = options;
  to.gauge({
    name: "leasehold_build_info",
    help: "Always 1; the labels tell what is running.",
    labels: ["version", "node", "store"],
    series: () => [[{ version, node: process.version, store }, 1]],
  });
}

const seconds = (ms: number | undefined) => (ms === undefined ? undefined : ms / 1_000);

function registerGauges(to: Exposition, now: () => GaugeSnapshot): void {
  /** No series at all while there is nothing to tell: a zero would look like a fact. */
  const gauge = (
    name: string,
    help: string,
    value: (snapshot: GaugeSnapshot) => number | undefined,
    type: "gauge" | "counter" = "gauge",
    labels: Labels = NO_LABELS,
  ) =>
    to[type]({
      name,
      help,
      labels: Object.keys(labels),
      series: () => {
        const current = value(now());
        return current === undefined ? [] : [[labels, current]];
      },
    });

  to.gauge({
    name: "leasehold_leases",
    help: "Leases; an ending one is over, and its locks are being freed.",
    labels: ["state"],
    series: () => {
      const { counts } = now();
      if (counts === undefined) return [];
      return [
        [{ state: "live" }, counts.leases - counts.leasesEnding],
        [{ state: "ending" }, counts.leasesEnding],
      ];
    },
  });
  to.gauge({
    name: "leasehold_locks_held",
    help: "Grants that are held.",
    labels: ["mode"],
    series: () => {
      const { counts } = now();
      if (counts === undefined) return [];
      return [
        [{ mode: "exclusive" }, counts.heldExclusive],
        [{ mode: "shared" }, counts.heldShared],
        [{ mode: "semaphore" }, counts.heldSemaphore],
      ];
    },
  });
  gauge("leasehold_locks_known", "Locks that are held or waited for.", (s) => s.counts?.locks);
  gauge("leasehold_lock_waiters", "Acquires that wait in a queue.", (s) => s.counts?.waiters);
  gauge("leasehold_lock_oldest_wait_seconds", "How long the oldest waiter has waited; zero: nobody waits.", (s) =>
    seconds(s.counts?.oldestWaitMs),
  );
  gauge("leasehold_lock_oldest_hold_seconds", "How long the oldest grant has been held; zero: nothing is held.", (s) =>
    seconds(s.counts?.oldestHoldMs),
  );
  gauge("leasehold_watchers", "Open watches.", (s) => s.watchers);
  gauge(
    "leasehold_client_clock_offset_max_seconds",
    "By how much the wall clock of a client is off from the server's, in either direction and less the possible error; " +
      "of the client that is off most.",
    (s) => seconds(s.clocks?.certainMsMax),
  );
  gauge(
    "leasehold_clients_clock_skewed",
    "Clients whose wall clock is certainly off by more than clockSkewWarnMs.",
    (s) => s.clocks?.skewed,
  );
  gauge(
    "leasehold_clients_clock_measured",
    "Clients that tell their wall clock: the others are in neither of the above.",
    (s) => s.clocks?.measured,
  );
  gauge("leasehold_last_token", "The fencing token of the latest grant.", (s) => s.counts?.lastToken);
  gauge("leasehold_lamport_timestamp", "The Lamport clock.", (s) => s.counts?.timestamp);
  gauge("leasehold_halted", "1 while nothing is granted because a client contradicts the store.", (s) =>
    s.counts === undefined ? undefined : Number(s.counts.halted !== ""),
  );
  gauge(
    "leasehold_restore_quiet_seconds",
    "For how long nothing is granted because the store was restored from a backup; zero: it is not so, or over.",
    (s) => seconds(s.quietMs),
  );
  gauge(
    "leasehold_sequencer_queue_commands",
    "Commands that wait for the disk: in the batch that is being built or written.",
    (s) => s.commandsQueued,
  );
  gauge("leasehold_journal_up", "1 while the store takes writes.", (s) => Number(s.journalUp));
  gauge("leasehold_journal_log_bytes", "Log that no checkpoint has folded yet.", (s) => s.journal?.logBytes);
  gauge(
    "leasehold_journal_checkpoint_lag_records",
    "Records that no checkpoint has folded yet.",
    (s) => s.journal?.checkpointLagRecords,
  );
  gauge(
    "leasehold_journal_written_bytes_total",
    "Bytes handed to the store since it was opened.",
    (s) => s.journal?.writtenBytes,
    "counter",
  );
  gauge("leasehold_leader", "1 while locks are granted here.", (s) => Number(s.leader));
  gauge("leasehold_draining", "1 while the server is shutting down.", (s) => Number(s.draining));
  to.gauge({
    name: "leasehold_sessions",
    help: "Sessions; a detached one waits to be resumed.",
    labels: ["state"],
    series: () => {
      const { counts, sessionsAttached } = now();
      if (counts === undefined) return [];
      const detached = Math.max(0, counts.sessions - sessionsAttached);
      return [
        [{ state: "attached" }, sessionsAttached],
        [{ state: "detached" }, detached],
      ];
    },
  });
}

/** What runs out: bounds, space, certificates. */
function registerBounds(to: Exposition, now: () => GaugeSnapshot): void {
  to.gauge({
    name: "leasehold_limit_used_ratio",
    help: "How much of a bound of the server is used, from 0 to 1; the label is the option without `limits.`, or openFiles.",
    labels: ["limit"],
    series: () => {
      const { limits, resources } = now();
      const series = limits.map(
        ({ limit, used, max }) => [{ limit: limit.replace("limits.", "") }, used / max] as const,
      );
      const { openFiles, openFilesMax } = resources;
      if (!openFiles || !openFilesMax) return series;
      return [...series, [{ limit: "openFiles" }, openFiles / openFilesMax] as const];
    },
  });
  to.gauge({
    name: "leasehold_store_free_bytes",
    help: "Free space on the file system of the store.",
    series: () => {
      const { storeFreeBytes } = now().resources;
      return storeFreeBytes === undefined ? [] : [[NO_LABELS, storeFreeBytes]];
    },
  });
  to.gauge({
    name: "leasehold_tls_certificate_expiry_timestamp_seconds",
    help: "When the certificate that a listener shows runs out, in seconds since 1970.",
    labels: ["listener"],
    series: () => now().certificates.map(({ listener, notAfterMs }) => [{ listener }, notAfterMs / 1_000] as const),
  });
}

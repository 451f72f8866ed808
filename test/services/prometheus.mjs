// @ts-check
/** Prometheus: one server with a configuration and rules of a test's own, asked over its HTTP API. */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { stringify } from "yaml";
import { need } from "./packages.mjs";
import { onFreePorts } from "./ports.mjs";
import { removeFolder, ServerProcess, temporaryFolder } from "./processes.mjs";

/**
 * @typedef {object} Options
 * @property {readonly object[]} scrape the `scrape_configs`
 * @property {Readonly<Record<string, string>> | undefined} [rules] files of rules: their names and contents
 * @property {number | undefined} [evaluationMs] how often it scrapes and judges, 1 s if not given
 */

/**
 * What a query gives.
 *
 * @typedef {object} Sample
 * @property {Record<string, string>} metric
 * @property {[number, string]} value
 */

/**
 * @typedef {object} Alert
 * @property {Record<string, string>} labels
 * @property {Record<string, string>} annotations
 * @property {"pending" | "firing"} state
 */

/**
 * @param {number} port
 * @param {Options} options
 */
async function start(port, { scrape, rules = {}, evaluationMs = 1_000 }) {
  const folder = temporaryFolder("prometheus");
  const every = `${evaluationMs}ms`;
  const global = { scrape_interval: every, scrape_timeout: every, evaluation_interval: every };
  for (const [name, text] of Object.entries(rules)) writeFileSync(join(folder, name), text);
  const config = { global, rule_files: Object.keys(rules), scrape_configs: scrape };
  writeFileSync(join(folder, "prometheus.yml"), stringify(config));
  const server = await ServerProcess.start({
    name: "prometheus",
    folder,
    command: [
      await need("prometheus"),
      ...["--config.file", join(folder, "prometheus.yml"), "--storage.tsdb.path", join(folder, "data")],
      ...["--web.listen-address", `127.0.0.1:${port}`],
    ],
    ready: (log) => log.includes("Server is ready to receive web requests"),
  });
  const url = `http://127.0.0.1:${port}`;
  /**
   * @param {string} path
   * @returns {Promise<any>}
   */
  const api = async (path) => {
    const response = await fetch(`${url}/api/v1/${path}`);
    const { status, data, error } = /** @type {any} */ (await response.json());
    if (status !== "success") throw new Error(`${path}: ${error}`);
    return data;
  };
  const stop = async () => {
    await server.end();
    await removeFolder(folder);
  };
  return {
    port,
    url,
    get pid() {
      return server.pid;
    },
    get log() {
      return server.log;
    },
    /**
     * The value of an expression now.
     *
     * @param {string} expression
     * @returns {Promise<Sample[]>}
     * @throws {Error} what Prometheus says of it, if it is no expression
     */
    async query(expression) {
      const { resultType, result } = await api(`query?query=${encodeURIComponent(expression)}`);
      return resultType === "scalar" ? [{ metric: {}, value: result }] : result;
    },
    /** @returns {Promise<Alert[]>} those that are pending or firing */
    alerts: async () => (await api("alerts")).alerts,
    /** @returns {Promise<{ labels: Record<string, string>, health: string, lastError: string }[]>} */
    targets: async () => (await api("targets?state=active")).activeTargets,
    /** What became of the rules: `health` is "ok" for each that could be evaluated. */
    rules: async () => (await api("rules")).groups.flatMap((/** @type {{ rules: object[] }} */ group) => group.rules),
    stop,
    [Symbol.asyncDispose]: stop,
  };
}

/**
 * Starts Prometheus on a free port of 127.0.0.1.
 *
 * @param {Options} options
 * @example
 * const prometheus = await startPrometheus({
 *   scrape: [{ job_name: "leasehold", static_configs: [{ targets: [server.opsAddress] }] }],
 * });
 * await prometheus.query("up");
 * await prometheus.stop();
 */
export function startPrometheus(options) {
  return onFreePorts(1, (port = 0) => start(port, options));
}

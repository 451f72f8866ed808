import { createReadStream } from "node:fs";
import type { Command } from "commander";
import { checkHistory, readHistory, type Source } from "../verify/check.js";
import type { Findings, Moment, Violation } from "../verify/findings.js";
import { type History, UnreadableHistory } from "../verify/history.js";
import { rules } from "../verify/rules.js";
import { duration as durationOption } from "./arguments.js";
import { CliError } from "./common.js";
import { duration, json, list, plain, plural, print, table } from "./output.js";

interface VerifyOptions {
  readonly skew: number;
  readonly json: boolean;
}

const VIOLATED = 1;
/** As in sysexits.h: the data is wrong. */
const UNREADABLE = 65;

export function registerVerify(program: Command): void {
  program
    .command("verify")
    .description("check a history of clients: that nobody held what somebody else held, that tokens only rise")
    .argument("<history...>", "files of recorded events that belong together; - for standard input")
    .option("--skew <duration>", "by how much clocks may be off that recorded on several machines", durationOption, 0)
    .option("--json", "print JSON, for programs", false)
    .action(async (files: readonly string[], options: VerifyOptions) => {
      const history = await read(files, options.skew);
      const findings = checkHistory(history);
      print(options.json ? json(forJson(history, findings)) : report(history, findings));
      if (findings.some(({ violationsTotal }) => violationsTotal > 0)) process.exitCode = VIOLATED;
    });
}

async function read(files: readonly string[], skewMs: number): Promise<History> {
  const sources = files.map((name): Source => {
    return { name, chunks: name === "-" ? process.stdin : createReadStream(name) };
  });
  try {
    return await readHistory(sources, skewMs * 1e6);
  } catch (error) {
    if (error instanceof UnreadableHistory) throw new CliError(`leasehold: ${plain(error.message)}`, UNREADABLE);
    throw error;
  }
}

const whole = (n: number) => n.toLocaleString("en-US");

function report(history: History, findings: readonly Findings[]): string {
  const violations = findings.flatMap((finding) => finding.violations);
  const total = findings.reduce((sum, { violationsTotal }) => sum + violationsTotal, 0);
  const told = violations.map((violation) => describe(history, violation)).join("");
  const rest = total > violations.length ? `\n... and ${whole(total - violations.length)} more\n` : "";
  const verdict = total === 0 ? "no violation\n" : `${plural(total, "violation")}\n`;
  return `${summary(history)}\n${operations(history)}\n${checkers(findings)}${told}${rest}\n${verdict}`;
}

function summary(history: History): string {
  const { events, processes, locks, torn, startNs, endNs } = history;
  const rows: [string, string][] = [
    ["events", `${whole(events)} within ${duration(events === 0 ? 0 : (endNs - startNs) / 1e6)}`],
    ["processes", whole(processes.size)],
    ["locks", whole(locks.size)],
  ];
  if (torn > 0) rows.push(["cut off", `${plural(torn, "last line")}, ignored`]);
  return list(rows);
}

function operations({ counts }: History): string {
  const rows = [...counts].map(([op, { ok, fail, unknown, unfinished }]) => [
    op,
    ...[ok, fail, unknown, unfinished].map(whole),
  ]);
  return table(["OPERATION", "OK>", "FAILED>", "UNKNOWN>", "UNFINISHED>"], rows);
}

function checkers(findings: readonly Findings[]): string {
  const rows = findings.map(({ checker, looked, what, violationsTotal }) => [
    checker,
    whole(looked),
    what,
    whole(violationsTotal),
  ]);
  return table(["CHECKER", "LOOKED AT>", "", "VIOLATIONS>"], rows);
}

function describe(history: History, { rule, subject, explanation, events }: Violation): string {
  const at = (ns: number) => `${((ns - history.startNs) / 1e6).toFixed(3)} ms`;
  const row = (event: Moment) => [
    at(event.ns),
    plain(event.process),
    plain(event.text),
    plain(`${event.source}:${event.line}`),
  ];
  const heading = `\n${rule}: ${plain(subject)}\n  the rule: ${rules[rule]}\n  but ${plain(explanation)}\n`;
  return heading + table(["TIME>", "PROCESS", "EVENT", "CALLED AT"], events.map(row)).replace(/^(?=.)/gm, "  ");
}

function forJson({ events, processes, locks, torn, startNs, endNs, counts }: History, findings: readonly Findings[]) {
  return {
    ok: findings.every(({ violationsTotal }) => violationsTotal === 0),
    events,
    durationMs: events === 0 ? 0 : (endNs - startNs) / 1e6,
    processes: processes.size,
    locks: locks.size,
    tornLines: torn,
    operations: Object.fromEntries(counts),
    checkers: findings.map(({ checker, looked, what, violationsTotal }) => ({
      checker,
      looked,
      what,
      violationsTotal,
    })),
    violations: findings.flatMap(({ violations }) => violations),
  };
}

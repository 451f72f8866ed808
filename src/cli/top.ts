/** `leasehold top`: where a server's locks are busy, live on a terminal, or as snapshots. */
import { setTimeout as sleep } from "node:timers/promises";
import { type Command, Option } from "commander";
import { positive, positiveDuration } from "./arguments.js";
import { type Caller, CliError, type ConnectionOptions, connectionOptions, withServer } from "./common.js";
import { print } from "./output.js";
import { type Sample, sampleForJson, takeSample } from "./top/sample.js";
import { Screen } from "./top/screen.js";
import { rowsFor, view } from "./top/view.js";

interface TopOptions extends ConnectionOptions {
  readonly interval: number;
  readonly count?: number;
  readonly limit?: number;
}

/** Of each table, away from a terminal. */
const LIMIT = 10;
/** The most that a server lists of each. */
const LIMIT_MAX = 100;

const HELP = `
On a terminal it is drawn anew every second, until q or ^C. With --json, or into a pipe, it prints one snapshot and ends;
with --count so many, one JSON object a line. Grants per second are estimates of the server's; tokens/s is measured
between two snapshots.`;

export function registerTop(program: Command): void {
  const command = program
    .command("top")
    .summary("show the hottest locks, the longest waits and the longest holds")
    .description("Show which locks are taken most often, who waits longest and who holds longest.")
    .addOption(
      new Option("--interval <duration>", "from one snapshot to the next")
        .default(1_000, "1s")
        .argParser(positiveDuration),
    )
    .addOption(new Option("--count <n>", "how many snapshots (default: 1; on a terminal no end)").argParser(positive))
    .addOption(
      new Option("--limit <n>", "rows of each table (default: 10; on a terminal what fits)").argParser(positive),
    )
    .addHelpText("after", HELP);
  connectionOptions(command).action(async (options: TopOptions) => {
    const live = process.stdout.isTTY && !options.json;
    await withServer(options, (server) => (live ? watchLive(server, options) : printSnapshots(server, options)));
  });
}

async function printSnapshots(server: Caller, { interval, count = 1, limit = LIMIT, json }: TopOptions): Promise<void> {
  let sample: Sample | undefined;
  const rows = Math.min(limit, LIMIT_MAX);
  for (let i = 0; i < count; i++) {
    if (i > 0) await sleep(interval);
    sample = await takeSample(server, rows, sample);
    if (json) print(`${JSON.stringify(sampleForJson(sample))}\n`);
    else print(`${i > 0 ? "\n" : ""}${view(sample, rows).join("\n")}\n`);
  }
}

async function watchLive(server: Caller, options: TopOptions): Promise<void> {
  // Before the screen is taken: a server that cannot be reached is told in the ordinary way.
  let sample = await takeSample(server, LIMIT_MAX, undefined);
  let trouble = "";
  const stop = new AbortController();
  const screen = new Screen({ redraw: () => draw(), quit: () => stop.abort() });
  const draw = () => screen.draw(view(sample, options.limit ?? rowsFor(screen.lines), trouble));
  try {
    draw();
    for (let i = 1; i !== options.count; i++) {
      await sleep(options.interval, undefined, { signal: stop.signal });
      try {
        sample = await takeSample(server, LIMIT_MAX, sample);
        trouble = "";
      } catch (error) {
        if (!(error instanceof CliError)) throw error;
        trouble = error.message;
      }
      if (stop.signal.aborted) return;
      draw();
    }
  } catch (error) {
    if (!stop.signal.aborted) throw error;
  } finally {
    screen.close();
  }
}

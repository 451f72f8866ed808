/**
 * The process that the crash tests kill. `node child.mjs <command> <directory> <options as JSON>`; it continues the
 * workload where the store left off and reports each event as a line, written at once: `open N`, `ack N`, `failed TEXT`.
 */
import { writeSync } from "node:fs";
import { LevelJournal } from "../../dist/server/journal/level.js";
import { record } from "./workload.mjs";

const [command, directory, json] = process.argv.slice(2);
const options = JSON.parse(json);
const say = (line) => writeSync(1, `${line}\n`);
const kill = () => process.kill(process.pid, "SIGKILL");

/** Kills this process at the `nth` time that the named step of a checkpoint write is reached. */
function killAt({ step, nth, spinUs }) {
  let left = nth;
  return (reached, checkpoint) => {
    if (!checkpoint || reached !== step || --left > 0) return;
    const end = performance.now() + spinUs / 1000;
    while (performance.now() < end);
    kill();
  };
}

async function open() {
  const onStep = options.kill === undefined ? undefined : killAt(options.kill);
  const journal = new LevelJournal(directory, { ...options.journal, ...(onStep && { onStep }) });
  const { entries } = await journal.open();
  const n = Number(entries.get("n") ?? 0);
  say(`open ${n}`);
  return { journal, n };
}

async function appendUntilFailure({ journal, n }, count = Number.POSITIVE_INFINITY) {
  for (let i = 1; i <= count; i++) {
    try {
      await journal.append(record(n + i));
    } catch (error) {
      say(`failed ${error.message}`);
      return true;
    }
    say(`ack ${n + i}`);
  }
  return false;
}

const commands = {
  /** Appends until it is killed. */
  load: async () => appendUntilFailure(await open()),
  /** Appends some, then checkpoints while nothing is appended. */
  checkpointAlone: async () => {
    const opened = await open();
    await appendUntilFailure(opened, options.count);
    while (opened.journal.stats().checkpointLagRecords > 0) await opened.journal.checkpoint();
    say("not killed");
  },
  /** Appends until the disk is full, opens again, appends some more and dies without closing. */
  fillAndGoOn: async () => {
    const first = await open();
    await appendUntilFailure(first);
    await first.journal.append([]).catch((error) => say(`refused ${error.message}`));
    await first.journal.close();
    await appendUntilFailure(await open(), options.count);
    kill();
  },
  /** Says whether the store can be opened. */
  tryOpen: async () => {
    await open().catch((error) => say(`refused ${error.message}`));
  },
  /** Holds the store until it is killed. */
  hold: async () => {
    await open();
    setInterval(() => {}, 1000);
  },
};
await commands[command]();

import { expect, test } from "vitest";
import type { Mutations } from "../../src/server/journal/journal.js";
import { LevelJournal, type LevelJournalOptions } from "../../src/server/journal/level.js";
import { removeDirectory, temporaryDirectory } from "./processes.js";
import { numbers, seedFromEnvironment } from "./random.js";
import { apply } from "./workload.mjs";

const below = (next: () => number, bound: number) => next() % bound;

function randomOptions(next: () => number): LevelJournalOptions {
  return {
    reserveBytes: 0,
    writeBufferBytes: [64 * 1024, 1024 * 1024][below(next, 2)]!,
    checkpoint: {
      stepBytes: [500, 5000, 128 * 1024][below(next, 3)]!,
      segmentLogBytes: [1000, 20_000][below(next, 2)]!,
      segmentRecords: [1, 5, 100][below(next, 3)]!,
      logRecordsMax: [3, 1000][below(next, 2)]!,
      ageMs: [0, 10, 1000][below(next, 3)]!,
    },
  };
}

function randomRecord(next: () => number): Mutations {
  return Array.from({ length: below(next, 12) }, () => {
    const key = `${["lock", "hold", "ключ", "🔑"][below(next, 4)]}/${below(next, 40)}`;
    if (below(next, 3) === 0) return [key, null];
    return [key, below(next, 10) === 0 ? "" : String(next()).repeat(below(next, 100))];
  }).flat();
}

test.each([1, 2, 3, 4])("random records, checkpoints and restarts give what a map gives (%i)", async () => {
  const seed = seedFromEnvironment();
  const next = numbers(seed);
  const model = new Map<string, string>();
  const directory = await temporaryDirectory();
  let journal = new LevelJournal(directory, randomOptions(next));
  await journal.open();

  async function restart(): Promise<void> {
    await journal.close();
    journal = new LevelJournal(directory, randomOptions(next));
    const { entries } = await journal.open();
    expect(Object.fromEntries(entries), `seed ${seed}`).toEqual(Object.fromEntries(model));
  }

  try {
    for (let step = 0; step < 400; step++) {
      const choice = below(next, 40);
      if (choice === 0) await restart();
      else if (choice < 6) await journal.checkpoint();
      else {
        const record = randomRecord(next);
        await journal.append(record);
        apply(model, record);
      }
    }
    await restart();
  } catch (error) {
    throw new Error(`seed ${seed}`, { cause: error });
  } finally {
    await journal.close();
    await removeDirectory(directory);
  }
});

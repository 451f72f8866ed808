/** A server that goes on in a store that was restored from a backup. */
import { join } from "node:path";
import { QUIET_KEY } from "../../src/server/core/records.js";
import { LevelJournal } from "../../src/server/journal/level.js";
import type { World } from "./world.js";

/** Starts it again as if its store had just been restored: nothing is granted for an hour. */
export async function restored(world: World): Promise<void> {
  await world.stop();
  const journal = new LevelJournal(join(world.folder, "store"));
  await journal.open();
  await journal.append([QUIET_KEY, JSON.stringify([3_600_000])]);
  await journal.close();
  await world.start();
}

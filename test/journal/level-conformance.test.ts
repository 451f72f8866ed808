import { LevelJournal, type LevelJournalOptions } from "../../src/server/journal/level.js";
import { journalConformance } from "./conformance.js";
import { removeDirectory, SMALL, temporaryDirectory } from "./processes.js";

function level(name: string, options: LevelJournalOptions): void {
  journalConformance(name, async () => {
    const directory = await temporaryDirectory();
    return {
      journal: () => new LevelJournal(directory, options),
      destroy: () => removeDirectory(directory),
    };
  });
}

level("level", {});
level("level with small steps", SMALL);

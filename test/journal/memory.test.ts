import { MemoryBacking, MemoryJournal } from "../../src/server/journal/memory.js";
import { journalConformance } from "./conformance.js";

journalConformance("memory", async () => {
  const backing = new MemoryBacking();
  return { journal: () => new MemoryJournal(backing), destroy: async () => {} };
});

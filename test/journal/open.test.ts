import { describe, expect, test } from "vitest";
import { createJournal, parseStore } from "../../src/server/journal/open.js";

describe("the text of --store", () => {
  test.each([
    ["level:./leasehold-data", { kind: "level", directory: "./leasehold-data" }],
    ["level:/var/lib/a:b", { kind: "level", directory: "/var/lib/a:b" }],
    ["memory:", { kind: "memory" }],
    ["memory", { kind: "memory" }],
  ])("%s", (text, store) => {
    const parsed = parseStore(text);
    expect(parsed).toEqual({ ok: true, store });
    if (parsed.ok) expect(createJournal(parsed.store).store).toBe(parsed.store.kind);
  });

  test.each([
    ["level:", "needs a directory"],
    ["level", "needs a directory"],
    ["level:a\0b", "NUL"],
    ["memory:x", 'not "x"'],
    ["redis://h", 'unknown store "redis://h": known stores are level:DIRECTORY and memory:'],
    ["", "known stores are"],
  ])("%j is refused", (text, error) => {
    const parsed = parseStore(text);
    expect(parsed.ok).toBe(false);
    expect(parsed.ok ? "" : parsed.error).toContain(error);
  });
});

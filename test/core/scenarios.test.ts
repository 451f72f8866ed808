import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { runScenario } from "./scenario.js";

const folder = fileURLToPath(new URL("scenarios/", import.meta.url));

/** Writes what there is instead of comparing: read the diff. */
const update = process.env.UPDATE_SCENARIOS === "1";

test.each(readdirSync(folder).filter((name) => name.endsWith(".txt")))("%s", (name) => {
  const expected = readFileSync(folder + name, "utf8");
  const actual = runScenario(expected);
  if (update) writeFileSync(folder + name, actual);
  else expect(actual).toBe(expected);
});

test("a wrong expectation is noticed", () => {
  const wrong = "call c1 acquire a own=1000\n----\nc1: busy\n";
  expect(runScenario(wrong)).not.toBe(wrong);
});

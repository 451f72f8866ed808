import { expect, test } from "vitest";
import { mulberry32 } from "../e2e/told.js";
import { Generator } from "./generator.js";
import { violationsOf } from "./support.js";

const SEED = Number(process.env.LEASEHOLD_SEED ?? Date.now() % 1e9);

test("correct histories pass", async () => {
  console.log(`seed ${SEED}`);
  const seen = new Map<string, number>();
  for (let i = 0; i < 200; i++) {
    const seed = SEED + i;
    const events = new Generator(mulberry32(seed), 2 + (i % 8)).run(400);
    for (const { op, type } of events) seen.set(`${op} ${type}`, (seen.get(`${op} ${type}`) ?? 0) + 1);
    expect(await violationsOf(events), `seed ${seed}`).toEqual([]);
    expect(await violationsOf(events, 500), `seed ${seed}, with a skew`).toEqual([]);
  }
  // The generator draws everything.
  const rare = [
    "acquire unknown",
    "release unknown",
    "downgrade unknown",
    "downgrade fail",
    "transfer ok",
    "observe ok",
  ];
  for (const kind of [...rare, "write fail", "refresh fail", "range ok", "tick ok"])
    expect(seen.get(kind)).toBeGreaterThan(10);
});

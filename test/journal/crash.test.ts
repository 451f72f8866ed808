import { describe, expect, test } from "vitest";
import type { WriteStep } from "../../src/server/journal/level.js";
import {
  expectAcknowledged,
  removeDirectory,
  runChild,
  SMALL,
  temporaryDirectory,
  WorkloadModel,
} from "./processes.js";
import { numbers, seedFromEnvironment } from "./random.js";

const ROUNDS = 15;

describe("kill -9", () => {
  test(`of a process that appends, ${ROUNDS} times on one store: everything acknowledged is there`, async () => {
    const seed = seedFromEnvironment();
    const next = numbers(seed);
    const directory = await temporaryDirectory();
    const model = new WorkloadModel();
    try {
      for (let round = 0; round < ROUNDS; round++) {
        let left = 1 + (next() % 400);
        const spinUs = next() % 2000;
        const report = await runChild("load", directory, { journal: SMALL }, (line, child) => {
          if (!line.startsWith("ack") || --left !== 0) return;
          const end = performance.now() + spinUs / 1000;
          while (performance.now() < end);
          child.kill("SIGKILL");
        });
        expect(report.signal).toBe("SIGKILL");
        expect(report.acked).toBeGreaterThan(0);
        await expectAcknowledged(directory, report.acked, model);
      }
    } catch (error) {
      throw new Error(`seed ${seed}`, { cause: error });
    } finally {
      await removeDirectory(directory);
    }
  });

  // A checkpoint step travels with an append under load, and alone when nothing is appended.
  const steps: WriteStep[] = ["collect", "write", "issued", "durable", "done"];
  const cases = steps.flatMap((step) => [
    { command: "load", step, spinUs: 0 },
    { command: "checkpointAlone", step, spinUs: 0 },
  ]);
  // While the write is under way in another thread, the moment counts.
  for (const spinUs of [30, 100, 200, 400, 1000]) {
    cases.push({ command: "load", step: "issued", spinUs }, { command: "checkpointAlone", step: "issued", spinUs });
  }
  test.each(cases)("of a checkpoint: $command at $step + $spinUs us", async ({ command, step, spinUs }) => {
    const directory = await temporaryDirectory();
    const model = new WorkloadModel();
    try {
      for (const nth of [1, 2, 4]) {
        // Alone: folding is left to the end, where there is enough of it for the nth step.
        const journal = command === "load" ? SMALL : { ...SMALL, checkpoint: { stepBytes: 8192, ageMs: 3600_000 } };
        const report = await runChild(command, directory, { journal, kill: { step, nth, spinUs }, count: 60 });
        expect(report.signal).toBe("SIGKILL");
        await expectAcknowledged(directory, report.acked, model);
      }
    } finally {
      await removeDirectory(directory);
    }
  });

  test("of the holder frees the store; until then another process is told so", async () => {
    const directory = await temporaryDirectory();
    const model = new WorkloadModel();
    let refusal: Promise<unknown> = Promise.resolve();
    await runChild("hold", directory, { journal: SMALL }, (_line, child) => {
      refusal = expectAcknowledged(directory, 0, model).then(
        () => "opened",
        (error: Error) => error.message,
      );
      void refusal.finally(() => child.kill("SIGKILL"));
    });
    expect(await refusal).toContain("is in use by another process");
    await expectAcknowledged(directory, 0, model);
    await removeDirectory(directory);
  });
});

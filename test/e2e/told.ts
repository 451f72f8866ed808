import { expect } from "vitest";
import { RawSession } from "./raw-session.js";
import type { ServerProcess } from "./support.js";

const IN_FLIGHT = 48;

/** What clients have been told, which is what must be there after a crash. */
export class Told {
  /** Granted, and no release was ever sent. */
  readonly held = new Map<string, number>();
  /** The release was acknowledged. */
  readonly released = new Map<string, number>();
  highestToken = 0;
  highestTimestamp = 0;
  grants = 0;
  releases = 0;
}

/** A small random generator, so that a seed repeats a run. */
export function mulberry32(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

/**
 * Acquires and releases with many commands in flight, until `acks` answers have come or the stream breaks. Returns how
 * many came.
 */
export async function load(server: ServerProcess, told: Told, label: string, acks: number, random: () => number) {
  const session = await RawSession.open(server.address);
  await session.send({ createLease: { ttlMs: 3_600_000 } });
  let answers = 0;
  let next = 0;
  const enough = new Promise<void>((resolve) => {
    const answered = () => {
      if (++answers >= acks) resolve();
    };
    const worker = async () => {
      while (answers < acks) {
        const name = `${label}/${next++}`;
        const { acquire } = await session.send({ acquire: { name, sessionLease: 1 } });
        const grant = acquire?.grant;
        if (!grant) return resolve(); // the store is down
        const token = grant.token as number;
        told.highestToken = Math.max(told.highestToken, token);
        told.highestTimestamp = Math.max(told.highestTimestamp, grant.timestamp as number);
        told.grants++;
        answered();
        if (random() < 0.02) {
          told.held.set(name, token);
          continue;
        }
        const { release } = await session.send({ release: { name, token } });
        if (!release) return resolve();
        told.releases++;
        if (random() < 0.05) told.released.set(name, token);
        answered();
      }
    };
    for (let i = 0; i < IN_FLIGHT; i++) void worker();
  });
  await Promise.race([enough, session.ended]);
  return { answers, close: () => session.close() };
}

/** Everything that clients have been told is so. */
export async function verify(server: ServerProcess, told: Told): Promise<void> {
  const session = await RawSession.open(server.address);
  const describe = async (name: string) => (await session.send({ describeLock: { name } })).describeLock;
  await Promise.all([
    ...[...told.held].map(async ([name, token]) => {
      expect(
        (await describe(name))?.holders?.map((holder) => holder.token),
        `${name} is still held`,
      ).toEqual([token]);
    }),
    ...[...told.released.keys()].map(async (name) => {
      expect((await describe(name))?.holders, `${name} stays released`).toEqual([]);
    }),
  ]);
  const { tick } = await session.send({ tick: { count: 1 } });
  expect(tick?.first, "timestamps go on above all seen").toBeGreaterThan(told.highestTimestamp);
  session.close();
}

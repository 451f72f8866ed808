/**
 * What every fence must do, whatever it guards: one list of cases, run against each adapter on the real system, and
 * against adapters with their check removed, which must fail it.
 *
 * The storage is seen as a set of registers, one for each resource, that are written through the fence.
 */
import { type Fence, type Fenced, FenceError, slotOf, TOKEN_MAX } from "@leasehold/fence";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { exclusive, permits, shared, TestLock } from "./locks.js";

/** A process of its own that has begun a fenced write and stands still as late in it as the adapter permits. */
export interface StoppedHolder {
  /** `kill -9`. Resolves when it is dead. */
  kill(): Promise<void>;
  /** SIGSTOP. */
  stop(): void;
  /** SIGCONT, and go on with the write. Resolves with the error code that it ended with, or "written". */
  goOn(): Promise<string>;
}

/** An adapter under test, with its storage. */
export interface Subject {
  readonly fence: Fence;
  /** Writes the register of the resource in one fenced step. Rejects STALE_TOKEN when the storage refuses. */
  write(by: Fenced, value: string): Promise<void>;
  /** What the register has, read without a fence; undefined: it does not exist. */
  read(resource: string): Promise<string | undefined>;
  /** Deletes the register as the holder with this token would, and makes it anew without a word about tokens. */
  recreate(by: Fenced): Promise<void>;
  /** How many requests have been sent to the storage. */
  sent(): number;
  /**
   * Starts a process that writes the register under a claim with this token and this much time, and resolves when it
   * stands still inside: in its open transaction where there is one, else with everything checked and nothing sent.
   */
  holder(name: string, token: number, remainingMs: number, value: string): Promise<StoppedHolder>;
  close(): Promise<void>;
}

export interface Case {
  readonly title: string;
  /** Fails by throwing. `name` is a lock that no other case uses. */
  run(subject: Subject, name: string): Promise<void>;
}

/** What an adapter cannot do, and why, for people. The case is then skipped, visibly. */
export type Exceptions = Readonly<Partial<Record<string, string>>>;

const WRITERS = 50;
/** The hold of a holder that is stopped inside. */
const HOLD_MS = 4_000;
/** What the storage may take to notice that it is over: time limits have a granularity, and the machine is busy. */
const SLACK_MS = 3_000;

const refused = (code: string) => expect.objectContaining({ code });

async function expectStale(write: Promise<unknown>, resource: string, token: number): Promise<void> {
  const error = await write.then(
    () => new Error(`the stale token ${token} was let through`),
    (thrown: unknown) => thrown,
  );
  expect(error).toEqual(refused("STALE_TOKEN"));
  expect(error).toMatchObject({ resource, token });
  expect(FenceError.is(error, "STALE_TOKEN")).toBe(true);
}

/** A deterministic shuffle; the seed is in the name of the lock, and so in the message of a failure. */
function shuffled(count: number, seed: number): number[] {
  const tokens = Array.from({ length: count }, (_, i) => i + 1);
  let state = seed;
  for (let i = count - 1; i > 0; i--) {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    const j = state % (i + 1);
    [tokens[i], tokens[j]] = [tokens[j] as number, tokens[i] as number];
  }
  return tokens;
}

const tokenOf = (value: string | undefined): number => Number((value ?? "0").replace(/\D/g, ""));

export const cases: readonly Case[] = [
  {
    title: "a resource that was never written starts at zero, and takes any token",
    async run({ fence, write, read }, name) {
      expect(await fence.inspect(name)).toEqual({ resource: name, floor: 0 });
      await write(exclusive(name, 5), "v5");
      expect(await read(name)).toBe("v5");
      expect(await fence.inspect(name)).toEqual({ resource: name, floor: 5 });
    },
  },
  {
    title: "a stale token is refused after a write with a higher one, and changes nothing",
    async run({ fence, write, read }, name) {
      await write(exclusive(name, 34), "v34");
      await expectStale(write(exclusive(name, 33), "v33"), name, 33);
      expect(await read(name)).toBe("v34");
      expect((await fence.inspect(name)).floor).toBe(34);
    },
  },
  {
    title: "a stale token is refused from the raise of the floor on, before the new holder has written anything",
    async run({ fence, write, read }, name) {
      await write(exclusive(name, 33), "v33");
      await fence.raise(exclusive(name, 34));
      await expectStale(write(exclusive(name, 33), "late"), name, 33);
      expect(await read(name)).toBe("v33");
      await write(exclusive(name, 34), "v34");
      expect(await read(name)).toBe("v34");
    },
  },
  {
    title: "the same token may write again, and the floor may be raised to it again",
    async run({ fence, write, read }, name) {
      await fence.raise(exclusive(name, 7));
      await fence.raise(exclusive(name, 7));
      await write(exclusive(name, 7), "first");
      await write(exclusive(name, 7), "second");
      expect(await read(name)).toBe("second");
    },
  },
  {
    title: "a floor is not raised by a lower token",
    async run({ fence }, name) {
      await fence.raise(exclusive(name, 9));
      await expectStale(fence.raise(exclusive(name, 8)), name, 8);
      expect((await fence.inspect(name)).floor).toBe(9);
    },
  },
  {
    title: "a writer that knew its floor as raised is refused after all when another has raised it since",
    async run({ fence, write, read }, name) {
      const early = exclusive(name, 3);
      await fence.raise(early);
      await write(early, "v3");
      await write(exclusive(name, 4), "v4");
      await expectStale(write(early, "again"), name, 3);
      expect(await read(name)).toBe("v4");
    },
  },
  {
    title: `of ${WRITERS} concurrent writers with shuffled tokens none leaves its value behind a higher token's`,
    async run({ fence, write, read }, name) {
      const seed = Number(process.env.LEASEHOLD_SEED ?? 20_261_128);
      let writing = true;
      const seen: number[] = [];
      const look = async () => {
        while (writing) seen.push(tokenOf(await read(name)));
      };
      const looking = look();
      const outcomes = await Promise.allSettled(
        shuffled(WRITERS, seed).map((token) => write(exclusive(name, token), `v${token}`)),
      );
      writing = false;
      await looking;
      const context = `seed ${seed}`;
      for (const outcome of outcomes) {
        if (outcome.status === "rejected") expect(outcome.reason, context).toEqual(refused("STALE_TOKEN"));
      }
      expect(await read(name), context).toBe(`v${WRITERS}`);
      expect((await fence.inspect(name)).floor, context).toBe(WRITERS);
      expect(seen, context).toEqual([...seen].sort((a, b) => a - b));
    },
  },
  {
    title: "shared holds are checked against the floor and never raise it",
    async run({ fence, write, read }, name) {
      await fence.raise(exclusive(name, 10));
      await fence.raise(shared(name, 12));
      await write(shared(name, 12), "v12");
      expect((await fence.inspect(name)).floor).toBe(10);
      await write(shared(name, 11), "v11"); // another reader, whose token came earlier: not stale
      expect(await read(name)).toBe("v11");
      await expectStale(fence.raise(shared(name, 9)), name, 9);
      await expectStale(write(shared(name, 9), "v9"), name, 9);
      await write(exclusive(name, 13), "v13");
      await expectStale(write(shared(name, 12), "late"), name, 12);
      expect(await read(name)).toBe("v13");
    },
  },
  {
    title: "holders of permits fence their slots, each for itself",
    async run({ fence, write, read }, name) {
      await write(permits(name, 21, 0), "a21");
      await write(permits(name, 20, 1), "b20"); // granted earlier, and not stale: another slot
      expect(await read(`${name}#0`)).toBe("a21");
      expect(await read(`${name}#1`)).toBe("b20");
      expect((await fence.inspect(`${name}#0`)).floor).toBe(21);
      expect((await fence.inspect(name)).floor).toBe(0);
      await write(permits(name, 22, 1), "b22");
      await expectStale(write(permits(name, 20, 1), "late"), `${name}#1`, 20);
      await fence.raise(permits(name, 23, 0, 1)); // both of its slots
      await expectStale(write(permits(name, 22, 1), "late"), `${name}#1`, 22);
      await expect(write(permits(name, 23, 0, 1), "which?")).rejects.toEqual(refused("INVALID"));
      await write(slotOf(permits(name, 23, 0, 1), 1), "b23");
      expect(await read(`${name}#1`)).toBe("b23");
    },
  },
  {
    title: "resources are independent",
    async run({ fence, write, read }, name) {
      await write(exclusive(`${name}/a`, 100), "a");
      await write(exclusive(`${name}/b`, 1), "b");
      await write(exclusive(`${name}/A`, 2), "A"); // names differ in every letter's case
      expect(await read(`${name}/b`)).toBe("b");
      expect((await fence.inspect(`${name}/a`)).floor).toBe(100);
      expect((await fence.inspect(`${name}/A`)).floor).toBe(2);
    },
  },
  {
    title: "tokens are compared as numbers, and exactly up to 2^53 - 1",
    async run({ fence, write, read }, name) {
      for (const token of [9, 10, 99, 100, 2 ** 31, 2 ** 32, 10 ** 14, 10 ** 15 - 1, 10 ** 15, TOKEN_MAX - 1]) {
        await write(exclusive(name, token), `v${token}`);
        await expectStale(write(exclusive(name, token - 1), "late"), name, token - 1);
        expect((await fence.inspect(name)).floor).toBe(token);
        expect(await read(name)).toBe(`v${token}`);
      }
      await fence.raise(exclusive(name, TOKEN_MAX));
      expect((await fence.inspect(name)).floor).toBe(TOKEN_MAX);
      await expectStale(write(exclusive(name, TOKEN_MAX - 1), "late"), name, TOKEN_MAX - 1);
      await write(exclusive(name, TOKEN_MAX), "last");
      expect(await read(name)).toBe("last");
    },
  },
  {
    title: "bad tokens and names are refused before anything is sent",
    async run({ fence, write, sent }, name) {
      await fence.inspect(name); // whatever is prepared lazily has been
      const before = sent();
      const bad: unknown[] = [-1, 1.5, 2 ** 53, Number.NaN, Number.POSITIVE_INFINITY, "7", 7n, null, undefined, {}];
      for (const token of bad) {
        const claim = { name, token } as { name: string; token: number };
        await expect(write(claim, "bad")).rejects.toEqual(refused("INVALID"));
        await expect(fence.raise(claim)).rejects.toEqual(refused("INVALID"));
        await expect(fence.raise(new TestLock(name, token as number))).rejects.toEqual(refused("INVALID"));
      }
      for (const resource of ["", "a\0b", "a\nb", "\ud800", "x".repeat(600), 7 as unknown as string]) {
        await expect(write({ name: resource, token: 7 }, "bad")).rejects.toEqual(refused("INVALID"));
        await expect(fence.inspect(resource)).rejects.toEqual(refused("INVALID"));
        await expect(fence.reset(resource)).rejects.toEqual(refused("INVALID"));
      }
      expect(sent()).toBe(before);
    },
  },
  {
    title: "names may be anything that a lock may be called",
    async run({ fence, write, read }, name) {
      const names = ["it's", 'a "b"', "a`b", "a\\'b", "50%; -- x", "{a}:{b", "}", "ä/π/日本/🔒", " a ", "$1 :x ?"];
      for (const [i, one] of [...names, "n".repeat(400)].entries()) {
        const resource = `${name}/${one}`;
        await write(exclusive(resource, i + 2), `v${i}`);
        await expectStale(write(exclusive(resource, i + 1), "late"), resource, i + 1);
        expect(await read(resource)).toBe(`v${i}`);
        expect(await fence.inspect(resource)).toEqual({ resource, floor: i + 2 });
      }
    },
  },
  {
    title: "a register that was deleted and made anew is still guarded",
    async run({ write, read, recreate }, name) {
      await write(exclusive(name, 33), "v33");
      await write(exclusive(name, 34), "v34");
      await recreate(exclusive(name, 34));
      await expectStale(write(exclusive(name, 33), "late"), name, 33);
      expect(await read(name)).not.toBe("late");
      await write(exclusive(name, 34), "v34 again");
      expect(await read(name)).toBe("v34 again");
    },
  },
  {
    title: "an administrator may reset a floor",
    async run({ fence, write, read }, name) {
      await write(exclusive(name, 1_000), "v1000");
      await fence.reset(name);
      expect((await fence.inspect(name)).floor).toBe(0);
      await write(exclusive(name, 1), "v1");
      expect(await read(name)).toBe("v1");
      await fence.reset(`${name}/unknown`);
    },
  },
  {
    title: "nothing is sent for a lock that is lost",
    async run({ fence, write, sent, read }, name) {
      const lock = exclusive(name, 5);
      await write(lock, "v5");
      lock.lose();
      const before = sent();
      await expect(write(lock, "late")).rejects.toEqual(refused("LOST"));
      await expect(fence.raise(lock)).rejects.toEqual(refused("LOST"));
      await expect(write({ name, token: 5, remainingMs: 0 }, "late")).rejects.toEqual(refused("LOST"));
      expect(sent()).toBe(before);
      expect(await read(name)).toBe("v5");
    },
  },
  {
    title: "a crash between check and write leaves nothing half done",
    async run({ fence, write, read, holder }, name) {
      await write(exclusive(name, 50), "before");
      const crashed = await holder(name, 51, 60_000, "half done");
      await crashed.kill();
      await write(exclusive(name, 52), "after");
      expect(await read(name)).toBe("after");
      expect((await fence.inspect(name)).floor).toBe(52);
    },
  },
  {
    title: "a holder that is stopped inside blocks its successor no longer than its hold, and does not land afterwards",
    async run({ fence, write, read, holder }, name) {
      await write(exclusive(name, 60), "before");
      const stopped = await holder(name, 61, HOLD_MS, "late");
      stopped.stop();
      const beganMs = performance.now();
      await fence.raise(exclusive(name, 62));
      await write(exclusive(name, 62), "successor");
      const tookMs = performance.now() - beganMs;
      expect(tookMs, "how long the successor was blocked").toBeLessThan(HOLD_MS + SLACK_MS);
      expect(await read(name)).toBe("successor");
      const end = await stopped.goOn();
      expect(end).not.toBe("written");
      expect(await read(name)).toBe("successor");
    },
  },
];

let names = 0;
const freshName = () => `conformance/${process.pid}/${++names}`;

/** Registers the suite for an adapter. */
export function fenceConformance(title: string, open: () => Promise<Subject>, exceptions: Exceptions = {}): void {
  describe(`the fence conformance suite: ${title}`, () => {
    let subject: Subject;
    beforeAll(async () => {
      subject = await open();
    });
    afterAll(() => subject?.close());

    for (const { title: caseTitle, run } of cases) {
      const exception = Object.entries(exceptions).find(([start]) => caseTitle.startsWith(start))?.[1];
      it.skipIf(exception !== undefined)(exception ? `${caseTitle} (not here: ${exception})` : caseTitle, () =>
        run(subject, freshName()),
      );
    }
    for (const start of Object.keys(exceptions)) {
      if (!cases.some((one) => one.title.startsWith(start))) throw new Error(`no case begins with ${start}`);
    }
  });
}

/** The titles of the cases that an adapter fails. For adapters that are broken on purpose. */
export async function failedCases(open: () => Promise<Subject>): Promise<string[]> {
  const subject = await open();
  const failed: string[] = [];
  try {
    for (const { title, run } of cases) {
      try {
        await run(subject, freshName());
      } catch {
        failed.push(title);
      }
    }
  } finally {
    await subject.close();
  }
  return failed;
}

/** What any adapter without a check must fail. */
export const CHECK_CASES: readonly string[] = cases
  .map((one) => one.title)
  .filter((title) => /^(a stale token|a writer that knew|of \d+ concurrent|shared holds are checked)/.test(title));

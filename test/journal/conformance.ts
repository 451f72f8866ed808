import { describe, expect, test } from "vitest";
import type { Entry, Journal, JournalSnapshot, Mutations } from "../../src/server/journal/journal.js";
import { numbers } from "./random.js";

/** One place where a store lives; `journal()` gives a new, unopened journal on it. */
export interface Site {
  journal(): Journal;
  destroy(): Promise<void>;
}

async function all(snapshot: JournalSnapshot): Promise<(readonly Entry[])[]> {
  const slices: (readonly Entry[])[] = [];
  for await (const slice of snapshot.slices()) slices.push(slice);
  return slices;
}

/** What every store must do. */
export function journalConformance(name: string, createSite: () => Promise<Site>): void {
  const withSite = (body: (site: Site) => Promise<void>) => async () => {
    const site = await createSite();
    try {
      await body(site);
    } finally {
      await site.destroy();
    }
  };

  /** Opens the store again and gives its entries. */
  async function reopened(site: Site): Promise<Record<string, string>> {
    const journal = site.journal();
    const { entries } = await journal.open();
    await journal.close();
    return Object.fromEntries(entries);
  }

  async function written(site: Site, ...records: Mutations[]): Promise<Record<string, string>> {
    const journal = site.journal();
    await journal.open();
    for (const record of records) await journal.append(record);
    await journal.close();
    return reopened(site);
  }

  describe(`journal conformance: ${name}`, () => {
    test(
      "a new store is empty and has a random cluster id that stays",
      withSite(async (site) => {
        const first = site.journal();
        const { clusterId, entries, replayedRecords } = await first.open();
        expect(clusterId).toMatch(/^[0-9a-f]{32}$/);
        expect(entries.size).toBe(0);
        expect(replayedRecords).toBe(0);
        await first.append(["a", "1"]);
        await first.close();
        const second = site.journal();
        expect((await second.open()).clusterId).toBe(clusterId);
        await second.close();
        const elsewhere = await createSite();
        const other = elsewhere.journal();
        expect((await other.open()).clusterId).not.toBe(clusterId);
        await other.close();
        await elsewhere.destroy();
      }),
    );

    test(
      "later records and later pairs win",
      withSite(async (site) => {
        const entries = await written(site, ["a", "1", "b", "1"], ["a", "2", "c", "1", "a", "3"], ["b", null]);
        expect(entries).toEqual({ a: "3", c: "1" });
      }),
    );

    test(
      "a key is deleted, put again, deleted within one record and deleted when it is not there",
      withSite(async (site) => {
        const entries = await written(
          site,
          ["a", "1", "gone", "1"],
          ["a", null, "never", null],
          ["a", "2", "b", "1", "b", null, "gone", null, "c", null, "c", "1"],
        );
        expect(entries).toEqual({ a: "2", c: "1" });
      }),
    );

    test(
      "an empty record, an empty value and all that text may hold",
      withSite(async (site) => {
        const odd = {
          "lock/ключ/钥匙/🔑": "значение 🗝 \u00a0\u2028",
          "a b=c\\d": "tab-less \\t \\n",
          e: "",
          "\u007f": "\u0080",
        };
        expect(await written(site, [], Object.entries(odd).flat(), [])).toEqual(odd);
      }),
    );

    test(
      "the entries belong to the caller",
      withSite(async (site) => {
        const journal = site.journal();
        const { entries } = await journal.open();
        await journal.append(["a", "1"]);
        entries.set("b", "not written");
        await journal.close();
        expect(await reopened(site)).toEqual({ a: "1" });
      }),
    );

    test(
      "many records over several openings",
      withSite(async (site) => {
        const expected: Record<string, string> = {};
        for (let round = 0; round < 4; round++) {
          const journal = site.journal();
          expect(Object.fromEntries((await journal.open()).entries)).toEqual(expected);
          for (let i = 0; i < 300; i++) {
            await journal.append([`k${i % 50}`, `${round}/${i}`, `t${i}`, "x", `t${i - 1}`, null]);
            expected[`k${i % 50}`] = `${round}/${i}`;
          }
          expected.t299 = "x";
          await journal.close();
        }
        expect(await reopened(site)).toEqual(expected);
      }),
    );

    test(
      "a large record",
      withSite(async (site) => {
        const next = numbers(7);
        const record = Array.from({ length: 20_000 }, (_, i) => [`key/${i}`, `${next()}`.repeat(20)]).flat();
        const entries = await written(site, record, ["key/0", null]);
        expect(Object.keys(entries)).toHaveLength(19_999);
        expect(entries["key/777"]).toBe(record[777 * 2 + 1]);
      }),
    );

    test(
      "a second append while one is in flight is refused and disturbs nothing",
      withSite(async (site) => {
        const journal = site.journal();
        await journal.open();
        const first = journal.append(["a", "1"]);
        await expect(journal.append(["b", "1"])).rejects.toThrow("in flight");
        await first;
        await journal.append(["c", "1"]);
        await journal.close();
        expect(await reopened(site)).toEqual({ a: "1", c: "1" });
      }),
    );

    test(
      "mutations that are no pairs are refused and change nothing",
      withSite(async (site) => {
        const journal = site.journal();
        await journal.open();
        await expect(journal.append(["a", "1", "b"])).rejects.toThrow("pairs");
        await journal.append(["c", "1"]);
        await journal.close();
        expect(await reopened(site)).toEqual({ c: "1" });
      }),
    );

    test(
      "close waits for the append in flight, and nothing is taken before open and after close",
      withSite(async (site) => {
        const journal = site.journal();
        await expect(journal.append(["a", "1"])).rejects.toThrow("not open");
        await journal.open();
        await expect(journal.open()).rejects.toThrow("once");
        const append = journal.append(["a", "2"]);
        await Promise.all([journal.close(), journal.close()]);
        await append;
        await expect(journal.append(["a", "3"])).rejects.toThrow("not open");
        await journal.close();
        expect(await reopened(site)).toEqual({ a: "2" });
      }),
    );

    test(
      "a store has one writer",
      withSite(async (site) => {
        const first = site.journal();
        await first.open();
        const second = site.journal();
        await expect(second.open()).rejects.toThrow("in use");
        await second.close();
        await first.append(["a", "1"]);
        await first.close();
        expect(await reopened(site)).toEqual({ a: "1" });
      }),
    );

    test(
      "stats count what is written",
      withSite(async (site) => {
        const journal = site.journal();
        expect(journal.stats()).toEqual({ writtenBytes: 0, logBytes: 0, checkpointLagRecords: 0 });
        await journal.open();
        const before = journal.stats().writtenBytes;
        await journal.append(["key", "x".repeat(1000)]);
        expect(journal.stats().writtenBytes).toBeGreaterThanOrEqual(before + 1000);
        await journal.close();
      }),
    );

    test(
      "a snapshot has what was durable when it was taken, while appends go on",
      withSite(async (site) => {
        const journal = site.journal();
        await expect(journal.snapshot()).rejects.toThrow("not open");
        const { clusterId } = await journal.open();
        const next = numbers(11);
        const model = new Map<string, string>();
        let records = 0;
        const append = async () => {
          const mutations: (string | null)[] = [];
          for (let i = 0; i < 20; i++) {
            const [key, value] = [`k${next() % 3_000}`, next() % 4 === 0 ? null : `${next()}`];
            mutations.push(key, value);
            if (value === null) model.delete(key);
            else model.set(key, value);
          }
          await journal.append(mutations);
          records++;
        };
        for (let round = 0; round < 4; round++) {
          for (let i = 0; i < 150; i++) await append();
          const snapshot = await journal.snapshot();
          const expected = new Map(model);
          expect([snapshot.clusterId, snapshot.seq]).toEqual([clusterId, records]);
          const seen = new Map<string, string>();
          for await (const slice of snapshot.slices()) {
            for (const [key, value] of slice) {
              expect(seen.has(key), `${key} comes twice`).toBe(false);
              seen.set(key, value);
            }
            await append();
            await append();
          }
          await snapshot.close();
          await snapshot.close();
          expect(seen).toEqual(expected);
        }
        await journal.close();
        await expect(journal.snapshot()).rejects.toThrow("not open");
      }),
    );

    test(
      "a snapshot beside an append has all of its record or nothing",
      withSite(async (site) => {
        const journal = site.journal();
        await journal.open();
        for (let i = 1; i <= 50; i++) {
          const append = journal.append(["a", `${i}`, "b", `${i}`]);
          const snapshot = await journal.snapshot();
          const seen = Object.fromEntries((await all(snapshot)).flat());
          expect(seen.a).toBe(seen.b);
          expect(seen.a ?? "0").toBe(`${snapshot.seq}`);
          await snapshot.close();
          await append;
        }
        await journal.close();
      }),
    );

    test(
      "two snapshots do not disturb each other, and those that are open end with the journal",
      withSite(async (site) => {
        const journal = site.journal();
        await journal.open();
        await journal.append(Array.from({ length: 3_000 }, (_, i) => [`k${i}`, "1"]).flat());
        const first = await journal.snapshot();
        await journal.append(["k0", "2", "k1", null]);
        const second = await journal.snapshot();
        await journal.append(["k0", "3", "k2", null]);
        const [one, two] = await Promise.all([first, second].map(async (each) => (await all(each)).flat()));
        expect([one!.length, new Map(one).get("k0"), two!.length, new Map(two).get("k0")]).toEqual([
          3_000,
          "1",
          2_999,
          "2",
        ]);
        const third = await journal.snapshot();
        const slices = third.slices()[Symbol.asyncIterator]();
        expect((await slices.next()).done).toBe(false);
        await journal.close();
        const rest = async () => {
          for (let slice = await slices.next(); !slice.done; slice = await slices.next());
        };
        await expect(rest()).rejects.toThrow("closed");
        await third.close();
        expect(Object.keys(await reopened(site))).toHaveLength(2_998);
      }),
    );
  });
}

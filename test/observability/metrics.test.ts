/** Every metric of a real server moves when its event happens, and what a scrape gives is as Prometheus wants it. */
import { describe, expect, test } from "vitest";
import { until } from "../e2e/support.js";
import { need } from "../services/packages.mjs";
import { run } from "../services/processes.mjs";
import { describeWithServices } from "../services/vitest.js";
import { type Provocation, provocations } from "./provoke.js";
import { World } from "./world.js";

const rises: NonNullable<Provocation["moved"]> = (before = 0, after = 0) => after > before;

/** Uses what there is to use. */
async function busy(world: World, owner: string): Promise<void> {
  const client = await world.connect({ owner });
  await Promise.all(
    Array.from({ length: 20 }, (_, i) => client.acquire(`${owner}/${i}`, { metadata: owner, mode: "shared" })),
  );
  await world.unary().call("CreateLease", { ttlMs: 60_000, owner });
  await world
    .unary()
    .call("Release", { name: owner, token: 999 })
    .catch(() => undefined);
}

const names = async (world: World) =>
  [...(await world.exposition()).matchAll(/^# TYPE (leasehold_\S+) /gm)].map(([, name = ""]) => name);

test("the table has every metric, and no other", async () => {
  expect(Object.keys(provocations).sort()).toEqual((await names(await World.create())).sort());
});

describe.each(Object.entries(provocations))("%s", (name, cases) => {
  test.each(cases)("$series moves", async ({ series, act, moved = rises, world: create = () => World.create() }) => {
    const world = await create();
    const key = name + series;
    const before = (await world.scrape()).get(key);
    await act(world);
    const hasMoved = async () => moved(before, (await world.scrape()).get(key));
    await until(hasMoved, 20_000, `a change of ${key}, which was ${before},`);
  });
});

test("no name, owner, metadata or token is in a label, and more locks make no more series", async () => {
  const world = await World.create();
  await busy(world, "SECRET-a");
  // What Node has open at the moment is another matter.
  const ours = async () => [...(await world.scrape()).keys()].filter((series) => series.startsWith("leasehold_"));
  const before = await ours();
  await busy(world, "SECRET-b");
  expect(await ours()).toEqual(before);
  expect(before.join("\n")).not.toMatch(/SECRET|999/);
});

describeWithServices("promtool check metrics", ["prometheus"], () => {
  test("finds nothing in what a busy server shows", async () => {
    const world = await World.create();
    await busy(world, "promtool");
    const ours = (await world.exposition())
      .split(/^(?=# HELP )/m)
      .filter((family) => /^# HELP leasehold_/.test(family));
    expect(ours.length).toBe(Object.keys(provocations).length);
    expect(await run([await need("promtool"), "check", "metrics"], { input: ours.join("") })).toBe("");
  });

  test("finds what is wrong with a name", async () => {
    const input = "# HELP leasehold_grants Grants.\n# TYPE leasehold_grants counter\nleasehold_grants 1\n";
    const promtool = await need("promtool");
    await expect(run([promtool, "check", "metrics"], { input })).rejects.toThrow(/_total/);
  });
});

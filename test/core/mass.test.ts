/** Very many of something at once: worked off in slices, with everybody else served in between. */
import { expect, test } from "vitest";
import type { CoreEvent } from "../../src/server/core/types.js";
import { acquireOf, Driver } from "./driver.js";

const SLICE = 1_000;

const count = (events: readonly CoreEvent[], kind: CoreEvent["kind"]): number =>
  events.filter((event) => event.kind === kind).length;

test("100,000 leases expire at the same instant", () => {
  const leases = 100_000;
  const driver = new Driver({ expirySliceMax: SLICE });
  for (let i = 0; i < leases; i++) {
    driver.createLease(`L${i}`, 1_000);
    driver.call(acquireOf(`lock/${i}`, `L${i}`));
  }
  driver.createLease("other", 60_000);
  driver.nowMs = 999;
  // The renewal of every thousandth has arrived in time.
  for (let i = 0; i < leases; i += 1_000) driver.call({ kind: "renewLease", leaseId: `L${i}`, progress: false });
  driver.nowMs = 1_500;

  let slices = 0;
  let lost = 0;
  for (; driver.isDue; slices++) {
    const { events } = driver.expire();
    expect(count(events, "leaseEnded")).toBeLessThanOrEqual(SLICE);
    expect(count(events, "holdEnded")).toBeLessThanOrEqual(SLICE);
    // Nobody waits for the slices to end: a new lock is granted in between.
    expect(driver.call(acquireOf(`new/${slices}`, "other"))).toMatchObject({ kind: "grant" });
    // Nobody is half dead: whoever has lost its lock is refused its renewal, and the other way round.
    const i = (slices * 7_919 + 1) % leases;
    const tried = driver.call(acquireOf(`lock/${i}`, "other"));
    const renewed = driver.call({ kind: "renewLease", leaseId: `L${i}`, progress: false });
    if (i % 1_000 === 0) expect(tried).toMatchObject({ kind: "busy" });
    expect(renewed?.kind).toBe(tried?.kind === "grant" ? "refused" : "renewed");
    if (tried?.kind === "grant") lost++;
  }
  expect(slices).toBeGreaterThanOrEqual((2 * (leases - leases / 1_000)) / SLICE);
  expect(lost).toBeGreaterThan(10);
  for (let i = 0; i < leases; i += 1_000) {
    expect(driver.call({ kind: "renewLease", leaseId: `L${i}`, progress: false })).toMatchObject({ kind: "renewed" });
    expect(driver.call(acquireOf(`lock/${i}`, "other"))).toMatchObject({ kind: "busy" });
  }
});

test("one lease with 10,000 holds, somebody waiting for each, dies as a whole", () => {
  const holds = 10_000;
  const driver = new Driver({ expirySliceMax: SLICE });
  driver.createLease("dying", 1_000);
  driver.createLease("heir", 60_000);
  for (let i = 0; i < holds; i++) driver.call(acquireOf(`lock/${i}`, "dying"));
  for (let i = 0; i < holds - 1; i++) driver.call(acquireOf(`lock/${i}`, "heir", { waitMs: 60_000 }));
  driver.nowMs = 1_000;

  let granted = 0;
  let slices = 0;
  for (; driver.isDue; slices++) {
    const { events } = driver.expire();
    expect(count(events, "holdEnded")).toBeLessThanOrEqual(SLICE);
    expect(count(events, "granted")).toBeLessThanOrEqual(SLICE);
    granted += count(events, "granted");
    if (slices > 0) continue;
    // Dead from the first slice on, with what is not cleared away yet.
    expect(driver.call({ kind: "renewLease", leaseId: "dying", progress: false })).toMatchObject({ kind: "refused" });
    expect(driver.call({ kind: "validate", name: "lock/9998", token: 9_999 })).toMatchObject({ held: false });
    expect(driver.call(acquireOf(`lock/${holds - 1}`, "heir"))).toMatchObject({ kind: "grant" });
  }
  expect(slices).toBeGreaterThanOrEqual(holds / SLICE);
  expect(granted).toBe(holds - 1);
  expect(driver.core.counts).toMatchObject({ leases: 1, holds, waiters: 0, locks: holds });
});

test("10,000 readers come in together behind one writer, a slice at a time, and nobody in between", () => {
  const readers = 10_000;
  const driver = new Driver({ expirySliceMax: SLICE, holdersPerLockMax: readers + 1 });
  driver.createLease("writer", 60_000);
  driver.createLease("readers", 60_000);
  const shared = [{ name: "doc", mode: "shared" as const, permits: 0, permitLimit: 0 }];
  driver.call(acquireOf("doc", "writer"));
  for (let i = 0; i < readers; i++) driver.call(acquireOf("doc", "readers", { items: shared, waitMs: 60_000 }));
  driver.call({ kind: "release", name: "doc", token: 1 });
  expect(driver.core.counts.holds).toBe(SLICE);
  expect(driver.core.nextDueMs).toBe(0);
  // Another step goes on with it; who comes now finds a queue.
  expect(driver.call(acquireOf("doc", "writer", { items: shared }))).toMatchObject({ kind: "busy", reserved: true });
  expect(driver.core.counts.holds).toBe(2 * SLICE);
  while (driver.isDue) expect(count(driver.expire().events, "granted")).toBeLessThanOrEqual(SLICE);
  expect(driver.core.counts).toMatchObject({ holds: readers, heldShared: readers, waiters: 0 });
});

test("after 1,000,000 different names nothing of them is left", () => {
  const driver = new Driver();
  driver.createLease("L", 60_000);
  for (let i = 0; i < 1_000_000; i++) {
    const outcome = driver.call(acquireOf(`name/${i}`, "L"));
    if (outcome?.kind !== "grant") throw new Error(`name/${i} was not granted`);
    driver.call({ kind: "release", name: `name/${i}`, token: i + 1 });
  }
  const state = driver.core.inspect();
  expect(state.locks.size).toBe(0);
  expect(state.lockIndex.page("", "", 1)).toEqual([]);
  expect(state.holds.size).toBe(0);
  expect(state.unsettled.size).toBe(0);
  expect(state.deadlines.size).toBe(1); // the lease
});

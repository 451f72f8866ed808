/** Entries that contradict each other are refused, not served. */
import { expect, test } from "vitest";
import { Driver } from "./driver.js";

const header = JSON.stringify([9, 0, 9, 1, 0]);
const lease = (dead = "") => JSON.stringify(["L1", 60_000, "", "", "", 0, 0, 1, dead]);
const hold = (name: string, leaseId: string, more?: readonly unknown[]) =>
  JSON.stringify([name, leaseId, 0, "", 1, "", "", 0, ...(more === undefined ? [] : [more])]);
const shared = ["shared", 0, 0, [], 0, 0, null, 0, 0, ""];
const permits = (slots: readonly number[], limit: number) => [
  "semaphore",
  slots.length,
  limit,
  slots,
  0,
  0,
  null,
  0,
  0,
  "",
];

const recover = (entries: Record<string, string>) =>
  new Driver({}, new Map(Object.entries({ "!": header, "i/1": "[0]", "l/A": lease(), ...entries })));

test.each([
  ["two exclusive holds", hold("a", "A"), hold("a", "A")],
  ["an exclusive hold beside a shared one", hold("a", "A", shared), hold("a", "A")],
  ["a shared hold beside a semaphore", hold("a", "A", permits([0], 3)), hold("a", "A", shared)],
  ["more permits than there are", hold("a", "A", permits([0, 1], 3)), hold("a", "A", permits([2], 2))],
  ["one slot twice", hold("a", "A", permits([0, 1], 9)), hold("a", "A", permits([1], 9))],
])("%s", (_, first, second) => {
  expect(() => recover({ "h/1": first, "h/2": second })).toThrow('tokens 1 and 2 both hold "a"');
});

test("what goes together is recovered, and what a dead lease holds is in nobody's way", () => {
  const dead = lease("expired").replace("L1", "L2");
  const driver = recover({
    "l/D": dead,
    "h/1": hold("a", "A", shared),
    "h/2": hold("a", "A", shared),
    "h/3": hold("b", "D"),
    "h/4": hold("b", "A"),
  });
  expect(driver.core.counts).toMatchObject({ holds: 4, heldShared: 2, heldExclusive: 2, locks: 2 });
  expect(driver.call({ kind: "validate", name: "b", token: 4 })).toMatchObject({ held: true });
  expect(driver.call({ kind: "validate", name: "b", token: 3 })).toMatchObject({ held: false });
});

test.each([
  ["a hold of a lease that is not there", { "h/1": hold("a", "X") }, "the hold with token 1 names a lease"],
  ["a ticket of a lease that is not there", { "t/1": JSON.stringify(["a", "X", 0, "", "", "", 9, 0]) }, "ticket T1"],
  ["an entry that nobody knows", { "x/1": "[]" }, "an unknown kind: x/1"],
])("%s", (_, entries, message) => {
  expect(() => recover(entries)).toThrow(message);
});

const ci = { name: "token/ci", quota: { leasesMax: 2, locksMax: 2, waitersMax: 2 } };
const owned = (more: readonly unknown[]) =>
  JSON.stringify(["L2", 60_000, "", "", "", 0, 0, 1, "", ...(more.length === 0 ? [] : [more])]);

test("what a principal has is counted from what there is", () => {
  const driver = recover({
    "l/B": owned([0, 1, 0, "token/ci"]),
    "h/1": hold("a", "B"),
    "h/2": hold("b", "A"),
    "t/3": JSON.stringify(["b", "B", 0, "", "", "", 9, 0]),
  });
  expect([...driver.core.inspect().usage]).toEqual([["token/ci", { leases: 1, locks: 1, waiters: 1 }]]);
  const release = { kind: "release", name: "a", token: 1 } as const;
  expect(driver.call(release, { ...ci, name: "token/other" })).toMatchObject({ reason: "DENIED" });
  expect(driver.call(release, ci)).toEqual({ kind: "released" });
  expect(driver.call({ kind: "revokeLease", lease: { kind: "lease", leaseId: "B" }, expired: false }, ci)).toEqual({
    kind: "revoked",
    revoked: true,
  });
  expect(driver.core.inspect().usage.size).toBe(0);
});

test.each([
  ["a lease", "l/B", owned([])],
  ["a lease that asks for progress", "l/B", owned([300, 1, 0])],
])("%s without a principal is nobody's, and is written as it always was", (_, key, record) => {
  const driver = recover({ [key]: record });
  const fx = driver.mutationsOf({ kind: "renewLease", leaseId: "B", progress: true }, ci);
  const written = JSON.parse(fx.get(key) ?? "[]") as unknown[];
  const before = JSON.parse(record) as unknown[];
  expect(written.length).toBe(before.length);
  expect((written[9] as unknown[] | undefined)?.length).toBe((before[9] as unknown[] | undefined)?.length);
});

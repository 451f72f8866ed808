/**
 * Wall clocks disagree. Three services, one of them 90 s ahead and one 45 s behind, order what happened by their clocks, and
 * judge the end of a lease by them. Then with Lamport timestamps, and a lock, with the very same clocks.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { startLeasehold } from "../../../test/services/leasehold.mjs";
import { need } from "../../../test/services/packages.mjs";
import { leaseholdCommand } from "../common/commands.mjs";
import { race } from "../common/stage.mjs";
import { until, Worker } from "../common/worker.mjs";

const SHIFTS = { berlin: "+0s", paris: "+90s", london: "-45s" };
const HOPS = 60;
const TTL_MS = 2_000;
const WORKER = new URL("worker.mjs", import.meta.url);

await race(
  {
    number: 6,
    title: "clock skew",
    systems: "processes with shifted clocks",
    wrong: "pairs in the wrong order, or two holders",
  },
  async ({ say, diagnose, outcome }) => {
    const faketime = await need("faketime");
    const folder = mkdtempSync(join(tmpdir(), "leasehold-race-"));
    const leasehold = await startLeasehold();
    const services = Object.entries(SHIFTS).map(([name, shift]) => {
      const job = { name, file: join(folder, "lease.db"), leasehold: leasehold.address, ttl: TTL_MS, hops: HOPS };
      const command = [faketime, "-f", shift];
      return new Worker(WORKER, job, { command, env: { FAKETIME_DONT_FAKE_MONOTONIC: "1" } });
    });
    try {
      const urls = await Promise.all(services.map(async (service) => (await service.next("url")).url));
      say(
        `three services, with clocks at ${Object.entries(SHIFTS)
          .map((entry) => entry.join(" "))
          .join(", ")}`,
      );

      const events = await ring(urls);
      const byWall = misordered(events, (event) => event.wallMs);
      say(
        `${events.length} events, each caused by the one before: ${byWall.wrong} of ${byWall.of} pairs in the wrong order`,
      );
      const naive = await contend(urls, "naive");
      say(`a lease with an end in wall time: ${naive.wrong} of ${naive.of} times two held it at once`);
      const without = outcome({ how: "wall clocks", wrong: byWall.wrong + naive.wrong, of: byWall.of + naive.of });

      await until("the server has seen everybody's clock", async () => {
        const status = await leaseholdCommand(leasehold, ["status", "--json"], () => {});
        return /paris/.test(status) && /london/.test(status);
      });
      await leaseholdCommand(leasehold, ["status"], diagnose);

      const lamport = outcome({ how: "Lamport timestamps", ...misordered(events, (event) => event.lamport) });
      const locked = outcome({ how: "Leasehold lock", ...(await contend(urls, "lock")) });
      return { without, fixed: [lamport, locked] };
    } finally {
      await Promise.all(services.map((service) => service.kill()));
      await leasehold.stop();
      rmSync(folder, { recursive: true, force: true });
    }
  },
);

async function ask(url, path, options) {
  const response = await fetch(url + path, { method: "POST", ...options });
  if (!response.ok) throw new Error(await response.text());
  return response.json();
}

/** A message goes round; every event in it was caused by the one before. */
function ring(urls) {
  return ask(urls[0], "/pass", { headers: { next: urls.map((url) => `${url}/pass`).join(",") }, body: "[]" });
}

/** Pairs of cause and effect in which the effect does not come later. */
function misordered(events, time) {
  const pairs = events.slice(1).map((effect, i) => [events[i], effect]);
  return { wrong: pairs.filter(([cause, effect]) => time(effect) < time(cause)).length, of: pairs.length };
}

/** Each takes it, and while it holds it each other one tries to. */
async function contend(urls, kind) {
  let wrong = 0;
  let of = 0;
  for (const holder of urls) {
    for (const other of urls) {
      if (other === holder) continue;
      if (!(await ask(holder, `/${kind}/take`))) throw new Error("it was not free");
      of++;
      if (await ask(other, `/${kind}/take`)) {
        wrong++;
        await ask(other, `/${kind}/free`);
      }
      await ask(holder, `/${kind}/free`);
    }
  }
  return { wrong, of };
}

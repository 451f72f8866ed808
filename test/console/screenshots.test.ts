/**
 * The pictures of the documentation, made of a server on which something happens. LEASEHOLD_SCREENSHOTS=1 puts them
 * into docs/images; without it they are made and thrown away, so that making them goes on working.
 */
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { Browser } from "playwright-core";
import { afterAll, beforeAll, expect, test } from "vitest";
import { root, until } from "../e2e/support.js";
import { describeWithServices } from "../services/vitest.js";
import { open, startBrowser } from "./browser.js";
import { type Console, startConsole } from "./support.js";

const BYTES_MAX = 200_000;
const KEPT = process.env.LEASEHOLD_SCREENSHOTS === "1";

describeWithServices("pictures of the console", ["chromium"], () => {
  let browser: Browser;
  beforeAll(async () => {
    browser = await startBrowser();
  });
  afterAll(() => browser?.close());

  test("are small enough", { timeout: 120_000 }, async () => {
    const console = await startConsole();
    const lock = "#/lock?name=orders%2Ffinance%2Fclose-2026-11";
    const take = async (name: string, hash: string, dark: boolean, ready: string) => {
      const { page } = await open(browser, console.url, hash, {
        dark,
        width: 1_120,
        height: hash === lock ? 1_150 : 760,
      });
      await page.locator(ready).first().waitFor();
      await page.locator("#live[data-state=live]").waitFor();
      const picture = await page.screenshot();
      expect(picture.length, name).toBeLessThan(BYTES_MAX);
      if (KEPT) await writeFile(join(root, "docs/images", `${name}.png`), picture);
      await page.close();
    };
    if (KEPT) await mkdir(join(root, "docs/images"), { recursive: true });
    const { page: watcher } = await open(browser, console.url); // the history is kept from now on
    await watcher.locator("#live[data-state=live]").waitFor();
    await happenings(console);
    await take("console-overview-light", "#/overview", false, "text=Longest waits");
    await take("console-overview-dark", "#/overview", true, "text=Longest waits");
    await take("console-locks-light", "#/locks", false, "main tbody tr");
    await take("console-locks-dark", "#/locks", true, "main tbody tr");
    await take("console-lock-light", lock, false, "svg .hold.now");
    await take("console-lock-dark", lock, true, "svg .hold.now");
  });
});

/** Some teams at work. */
async function happenings({ client }: Console): Promise<void> {
  const [pay, ledger, report, ci] = await Promise.all(
    ["payments/pod-7f", "ledger/pod-2c", "reports/pod-91", "ci/runner-4"].map((owner) => client(owner)),
  );
  if (!pay || !ledger || !report || !ci) throw new Error("there are four");
  const contested = "orders/finance/close-2026-11";
  // Holds of different lengths: until the wall clock has moved on, as the picture is drawn by it.
  for (const [who, ms] of [
    [pay, 300],
    [ledger, 700],
    [report, 150],
    [pay, 500],
  ] as const) {
    const lock = await who.acquire(contested);
    const endMs = performance.now() + ms;
    await until(() => performance.now() >= endMs);
    await lock.release();
  }
  await ledger.campaign("scheduler/leader", { value: "10.4.0.12:8080" });
  await ledger.acquire(contested, { metadata: "closing the month" });
  void pay.acquire(contested, { wait: "60s" }).catch(() => null);
  void report.acquire(contested, { wait: "60s" }).catch(() => null);
  void report.campaign("scheduler/leader").catch(() => null);
  for (let i = 0; i < 40; i++) await (await ci.acquire(`ci/build/${i % 4}`)).release();
  await ci.acquire("ci/build/main");
  await ci.acquire("ci/artifacts", { mode: "shared" });
  await pay.acquire("api/stripe", { permits: { of: 5 } });
  await report.acquire("api/stripe", { permits: { of: 5 } });
  for (const n of [17, 42, 58]) await pay.acquire(`orders/${n}`);
}

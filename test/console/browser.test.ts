/** The console in Chromium, on a whole server, with real clients that take and release locks. */
import { connect } from "@leasehold/client";
import type { Browser, Page } from "playwright-core";
import { afterAll, beforeAll, expect, onTestFinished, test } from "vitest";
import { file, secret, serve, tokenLine } from "../security/support.js";
import { certificateAuthority } from "../services/certificates.mjs";
import { describeWithServices } from "../services/vitest.js";
import { open, startBrowser } from "./browser.js";
import {
  barCount,
  hide,
  lowestContrast,
  nameless,
  rowCount,
  scrollWidth,
  setTheme,
  theme,
  traces,
} from "./in-page.mjs";
import { startConsole, testAccess } from "./support.js";

const hostile = '<img src=x onerror="alert(1)">&amp;\u202Egnp.exe';

const links = (page: Page) => page.locator("main tbody a").allTextContents();

describeWithServices("the console in Chromium", ["chromium"], () => {
  let browser: Browser;
  beforeAll(async () => {
    browser = await startBrowser();
  });
  afterAll(() => browser?.close());

  test("shows the server, and asks nobody else", async () => {
    const { url, client } = await startConsole();
    const me = await client("worker/1");
    await me.acquire("orders/42");
    const { page, complaints } = await open(browser, url);
    await page.getByText("Serving.").waitFor();
    await page.locator("#live[data-state=live]").waitFor();
    await page.getByRole("heading", { name: "Longest holds" }).waitFor();
    await page.locator("main").getByText("worker/1").first().waitFor();
    for (const [view, heading] of [
      ["Locks", "Locks"],
      ["Elections", "Elections"],
      ["Leases", "Leases and sessions"],
    ] as const) {
      await page.getByRole("navigation").getByRole("link", { name: view }).click();
      await page.getByRole("heading", { level: 1, name: heading }).waitFor();
      expect(await page.locator("nav [aria-current=page]").textContent()).toBe(view);
    }
    expect(complaints).toEqual([]);
  });

  test("searches by prefix, and follows what clients do", async () => {
    const { url, client } = await startConsole();
    const [anna, bert] = [await client("anna"), await client("bert")];
    const lock = await anna.acquire("orders/1");
    await anna.acquire("users/1");
    const { page, complaints } = await open(browser, url, "#/locks");
    await page.locator("tr", { hasText: "users/1" }).waitFor();
    await page.getByRole("searchbox").fill("orders/");
    await page.locator("tr", { hasText: "users/1" }).waitFor({ state: "detached" });
    expect(await links(page)).toEqual(["orders/1"]);
    await page.locator("#live[data-state=live]").waitFor();

    const waiting = bert.acquire("orders/1", { wait: "60s" });
    await page.locator("tr", { hasText: "orders/1" }).locator("td:last-child", { hasText: /^1$/ }).waitFor();
    await lock.release();
    await (await waiting).release();
    await page.getByText("No locks begin with orders/.").waitFor();
    await bert.acquire("orders/2", { mode: "shared" });
    await page.locator("tr", { hasText: "orders/2" }).getByText("shared").waitFor();
    expect(complaints).toEqual([]);
  });

  test("is live: a change is shown long before the next look at the clock", async () => {
    const { url, client } = await startConsole();
    const me = await client("me");
    const { page } = await open(browser, url, "#/locks");
    await page.locator("#live[data-state=live]").waitFor();
    await page.evaluate(hide);
    const lock = await me.acquire("live/1");
    await page.locator("tr", { hasText: "live/1" }).waitFor();
    await lock.release();
    await page.locator("tr", { hasText: "live/1" }).waitFor({ state: "detached" });
  });

  test("is used by keyboard alone", async () => {
    const { url, client } = await startConsole();
    const me = await client("me");
    for (const name of ["a", "b", "c"]) await me.acquire(name);
    const { page, complaints } = await open(browser, url);
    await page.getByText("Serving.").waitFor();
    await page.keyboard.press("g");
    await page.keyboard.press("l");
    await page.getByRole("heading", { level: 1, name: "Locks" }).waitFor();
    await page.getByRole("table", { name: "Locks" }).locator("tbody tr").nth(2).waitFor();
    const selected = () => page.locator("tr[aria-selected=true] a").allTextContents();
    await page.keyboard.press("j");
    await page.keyboard.press("j");
    expect(await selected()).toEqual(["b"]);
    await page.keyboard.press("k");
    expect(await selected()).toEqual(["a"]);
    await page.keyboard.press("j");
    await page.keyboard.press("Enter");
    await page.getByRole("heading", { level: 1, name: "b" }).waitFor();
    await page.keyboard.press("Escape");
    await page.getByRole("heading", { level: 1, name: "Locks" }).waitFor();
    await page.keyboard.press("/");
    await page.keyboard.type("c");
    await expect.poll(() => page.evaluate(rowCount)).toBe(1);
    expect(await links(page)).toEqual(["c"]);
    await page.keyboard.press("Escape");
    await page.keyboard.press("?");
    await page.getByRole("dialog", { name: "Keyboard" }).waitFor();
    await page.keyboard.press("Escape");
    await page.getByRole("dialog", { name: "Keyboard" }).waitFor({ state: "hidden" });
    expect(complaints).toEqual([]);
  });

  test("shows names, owners and values as what they are: text", async () => {
    const { url, client } = await startConsole();
    const me = await client(hostile);
    await me.acquire(hostile, { metadata: "<script>alert(2)</script>" });
    await me.acquire("..");
    const { page, complaints } = await open(browser, url, "#/locks");
    await page.locator("main tbody a", { hasText: "onerror" }).waitFor();
    expect((await links(page)).sort()).toEqual(["..", hostile]);
    await page.locator("main tbody a", { hasText: "onerror" }).click();
    await page.getByRole("heading", { level: 1 }).waitFor();
    expect(await page.locator("h1 bdi").textContent()).toBe(hostile);
    await page.locator("td", { hasText: "<script>alert(2)</script>" }).waitFor();
    expect(await page.locator("main img, main script").count()).toBe(0);
    for (const view of ["overview", "elections", "leases"]) {
      await page.goto(`${url}/console/#/${view}`);
      await page.locator("main").getByText("onerror").first().waitFor();
    }
    await page.getByRole("table", { name: "Sessions" }).getByText("onerror").waitFor();
    await page.goto(`${url}/console/#/lock?name=..`);
    await page.getByText("Held by 1").waitFor();
    expect(complaints).toEqual([]);
  });

  test("shows who blocks whom, and a picture of the grants", async () => {
    const { url, client } = await startConsole();
    const [anna, bert, carl] = [await client("anna"), await client("bert"), await client("carl")];
    const { page, complaints } = await open(browser, url, "#/lock?name=build");
    await page.getByText("Nobody holds it.").waitFor();
    await page.locator("#live[data-state=live]").waitFor();
    for (let i = 0; i < 3; i++) await (await carl.acquire("build")).release();
    await anna.acquire("build");
    const waiting = bert.acquire("build", { wait: "60s" }).catch(() => null);
    await page.getByRole("list", { name: "Who blocks whom" }).getByText("bert").waitFor();
    expect(await page.locator(".tree > li > span").textContent()).toMatch(/^anna \(token \d+\) is waited for by$/);
    await expect.poll(() => page.evaluate(barCount), { timeout: 10_000 }).toBe(4);
    expect(await page.locator("svg .hold.released").count()).toBe(3);
    expect(await page.locator("svg .hold.now").count()).toBe(1);
    await page.getByRole("table", { name: "Events" }).getByText("queued").waitFor();
    await bert.close();
    await waiting;
    expect(complaints).toEqual([]);
  });

  test("takes a lock away: with a token, the lock's name and a reason", async () => {
    const access = testAccess();
    const { url, client } = await startConsole(access);
    const holder = await client("holder");
    const lock = await holder.acquire("stuck/1");
    const { page, complaints, expected } = await open(browser, url);
    expected.add(401).add(403);
    const field = page.getByLabel("Token");
    await field.fill("wrong");
    await page.getByRole("button", { name: "Sign in" }).click();
    await page.locator("main").getByText("who are you?").waitFor();
    await field.fill("viewer");
    await page.getByRole("button", { name: "Sign in" }).click();
    await page.getByText("Serving.").waitFor();

    await page.goto(`${url}/console/#/lock?name=stuck%2F1`);
    const force = async () => {
      await page.getByRole("button", { name: "Force release…" }).click();
      const dialog = page.getByRole("dialog", { name: "Force release" });
      const submit = dialog.getByRole("button", { name: "Take the lock away" });
      await dialog.getByLabel("Type the name of the lock").fill("stuck/");
      expect(await submit.isDisabled()).toBe(true);
      await dialog.getByLabel("Type the name of the lock").fill("stuck/1");
      await dialog.getByLabel(/^Reason/).fill("its host is on fire");
      await dialog.getByLabel(/Now: the next/).check();
      await submit.click();
      return dialog;
    };
    const dialog = await force();
    await dialog.getByText("viewer may not admin").waitFor();
    expect(lock.state.is).toBe("held");
    await dialog.getByRole("button", { name: "Cancel" }).click();

    await page.goto(`${url}/console/#/signin`);
    await field.fill("admin");
    await page.getByRole("button", { name: "Sign in" }).click();
    await page.getByText("Serving.").waitFor();
    await page.goto(`${url}/console/#/lock?name=stuck%2F1`);
    await force();
    await page.getByText(`Taken away: token ${lock.grant.token}.`).waitFor();
    await page.getByText("Nobody holds it.").waitFor();
    await expect.poll(() => lock.state.is).toBe("lost");
    await page.getByRole("table", { name: "Events" }).getByText("its host is on fire").waitFor();
    expect(await page.evaluate(traces)).toEqual(["", ""]);
    expect(complaints).toEqual([]);
  });

  test("is light or dark as the system is, until one chooses; and fits a phone", async () => {
    const { url, client } = await startConsole();
    await (await client("a-rather-long-name-of-an-owner/with/parts")).acquire(`long/${"name/".repeat(20)}`);
    const { page, complaints } = await open(browser, url, "#/locks", { dark: true, width: 360, height: 740 });
    const shown = () => page.evaluate(theme);
    await page.locator("tr", { hasText: "long/" }).waitFor();
    expect(await shown()).toBe("dark");
    expect(await page.evaluate(scrollWidth)).toBeLessThanOrEqual(360);
    await page.getByRole("button", { name: /^Theme: dark/ }).click();
    expect(await shown()).toBe("light");
    await page.reload();
    expect(await shown()).toBe("light");
    for (const scheme of ["light", "dark"] as const) {
      await page.evaluate(setTheme, scheme);
      expect(await page.evaluate(lowestContrast), scheme).toBeGreaterThanOrEqual(4.5);
    }
    expect(complaints).toEqual([]);
  });

  test("everything has a role and a name", async () => {
    const { url, client } = await startConsole();
    await (await client("me")).acquire("x");
    const { page } = await open(browser, url);
    for (const hash of ["overview", "locks", "lock?name=x", "elections", "leases", "signin"]) {
      await page.goto(`${url}/console/#/${hash}`);
      await page.locator("main h1").waitFor();
      expect(await page.evaluate(nameless), hash).toEqual([]);
      expect(await page.locator("h1").count(), hash).toBe(1);
    }
    expect(await page.locator("html").getAttribute("lang")).toBe("en");
  });

  test("says when the server is gone, and comes back by itself", async () => {
    const { url, server } = await startConsole();
    const { page } = await open(browser, url);
    await page.locator("#live[data-state=live]").waitFor();
    await server.stop();
    await page.locator("#live[data-state=offline], #live[data-state=connecting]").waitFor();
    await page.getByRole("alert").getByText("the server cannot be reached").waitFor();
    await startConsole(undefined, { opsListen: new URL(url).host });
    await page.locator("#live[data-state=live]").waitFor();
    await page.locator("#notice").waitFor({ state: "hidden" });
  });

  test("many locks are shown page by page", async () => {
    const { url, client } = await startConsole();
    const me = await client("me");
    const names = Array.from({ length: 2_000 }, (_, i) => `many/${String(i).padStart(5, "0")}`);
    await Promise.all(names.map((name) => me.acquire(name)));
    const { page } = await open(browser, url, "#/locks");
    await page.locator("tr", { hasText: "many/00099" }).waitFor();
    expect(await page.locator("main tbody tr").count()).toBe(100);
    await page.getByRole("button", { name: "Next" }).click();
    await page.locator("tr", { hasText: "many/00100" }).waitFor();
    expect(await page.locator("main tbody tr").count()).toBe(100);
    await page.getByRole("button", { name: "Previous" }).click();
    await page.locator("tr", { hasText: "many/00000" }).waitFor();
  });
});

describeWithServices("the console in Chromium, over HTTPS", ["chromium", "openssl"], () => {
  test("shows whoever signs in what its policy lets it see, as it happens", async () => {
    const browser = await startBrowser();
    onTestFinished(() => browser.close());
    const authority = await certificateAuthority();
    const own = await authority.issue("server", { san: ["DNS:localhost", "IP:127.0.0.1"] });
    const secrets = { ops: secret("the-token-of-ops-1"), ci: secret("the-token-of-ci-12") };
    const server = await serve({
      ...{ tlsCert: own.certFile, tlsKey: own.keyFile },
      authTokens: file(tokenLine("ops", secrets.ops) + tokenLine("ci", secrets.ci)),
      policy: file("rules: [{ principal: token/ops, prefix: '', verbs: [acquire, observe] }]\n"),
    });
    const client = await connect(server.address, { tls: { ca: authority.cert }, token: secrets.ops, owner: "worker" });
    onTestFinished(() => client.close());
    await client.acquire("orders/1");

    const url = `https://${server.opsAddress}`;
    const signedIn = async (token: string) => {
      const { page, complaints, expected } = await open(browser, url, "#/locks", { anyAuthority: true });
      expected.add(401).add(403);
      await page.getByLabel("Token").fill(token);
      await page.getByRole("button", { name: "Sign in" }).click();
      return { page, complaints };
    };
    const ci = await signedIn(secrets.ci);
    await ci.page.getByText("token/ci may not observe all locks").first().waitFor();
    const ops = await signedIn(secrets.ops);
    await ops.page.locator("tr", { hasText: "orders/1" }).waitFor();
    await client.acquire("orders/2");
    await ops.page.locator("tr", { hasText: "orders/2" }).waitFor();
    expect([...ci.complaints, ...ops.complaints]).toEqual([]);
  });
});

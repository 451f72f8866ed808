/** A real browser, that can reach nothing but the server under test, and whose every complaint is kept. */
import { type Browser, chromium, type Page } from "playwright-core";
import { onTestFinished } from "vitest";
import { need } from "../services/packages.mjs";
import { reportViolations } from "./in-page.mjs";

export interface Opened {
  readonly page: Page;
  /** Errors on the page's console, uncaught ones, violations of its policy, and requests to anywhere else. */
  readonly complaints: string[];
  /** Statuses that the server is expected to answer with, about which Chromium complains by itself. */
  readonly expected: Set<number>;
}

export async function startBrowser(): Promise<Browser> {
  const executablePath = await need("chromium");
  const sandbox = process.getuid?.() === 0 ? ["--no-sandbox"] : [];
  return chromium.launch({ executablePath, args: [...sandbox, "--disable-dev-shm-usage"], timeout: 60_000 });
}

export interface View {
  readonly width?: number;
  readonly height?: number;
  readonly dark?: boolean;
  /** Accepts a certificate whatever authority has signed it. */
  readonly anyAuthority?: boolean;
}

/** Opens the console. `url`: of the server, without a path. */
export async function open(browser: Browser, url: string, hash = "", view: View = {}): Promise<Opened> {
  const context = await browser.newContext({
    viewport: { width: view.width ?? 1_200, height: view.height ?? 800 },
    colorScheme: view.dark ? "dark" : "light",
    locale: "en-GB",
    ignoreHTTPSErrors: view.anyAuthority ?? false,
  });
  onTestFinished(() => context.close());
  const page = await context.newPage();
  page.setDefaultTimeout(20_000);
  const complaints: string[] = [];
  const expected = new Set<number>();
  page.on("pageerror", (error) => complaints.push(String(error)));
  page.on("dialog", (dialog) => {
    complaints.push(`a dialog: ${dialog.message()}`);
    void dialog.dismiss();
  });
  page.on("console", (message) => {
    const status = /status of (\d+)/.exec(message.text())?.[1];
    const isExpected = status !== undefined && expected.has(Number(status));
    if (["error", "warning"].includes(message.type()) && !isExpected) complaints.push(message.text());
  });
  await context.route(
    (to) => to.origin !== url,
    (route) => {
      complaints.push(`a request to ${route.request().url()}`);
      return route.abort();
    },
  );
  await page.addInitScript(reportViolations);
  await page.goto(`${url}/console/${hash}`);
  return { page, complaints, expected };
}

import { spawn } from "node:child_process";
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, it } from "vitest";
import { createLogger } from "../../src/server/log.js";

function written(log: (fd: number) => void): string {
  const folder = mkdtempSync(join(tmpdir(), "leasehold-log-"));
  const path = join(folder, "log");
  const fd = openSync(path, "w");
  try {
    log(fd);
    return readFileSync(path, "utf8");
  } finally {
    closeSync(fd);
    rmSync(folder, { recursive: true, force: true });
  }
}

it("is one JSON object a line where nobody looks, from the configured level on", () => {
  const lines = written((fd) => {
    const log = createLogger({ level: "info", fd });
    log.debug("too fine");
    log.info({ address: "127.0.0.1:7420" }, "listening");
    log.error(new Error("disk"), "lost the journal");
  })
    .trimEnd()
    .split("\n");
  const [first, second, ...rest] = lines.map((line) => JSON.parse(line) as Record<string, unknown>);
  expect(rest).toEqual([]);
  expect(first).toEqual({
    level: "info",
    time: expect.stringMatching(/^\d{4}-.*Z$/),
    address: "127.0.0.1:7420",
    msg: "listening",
  });
  expect(second).toMatchObject({ level: "error", msg: "lost the journal", err: { message: "disk" } });
});

it("is readable for people", () => {
  const text = written((fd) => createLogger({ level: "info", fd, readable: true }).warn({ left: 3 }, "draining"));
  expect(text).toMatch(/^\[\d\d:\d\d:\d\d\.\d+\] WARN: draining\n\s+left: 3\n$/);
});

it("neither blocks nor keeps the process alive when nobody reads it", { timeout: 60_000 }, async () => {
  const program = `
    const { createLogger } = await import(${JSON.stringify(new URL("../../dist/server/log.js", import.meta.url).href)});
    const log = createLogger({ level: "info" });
    for (let i = 0; i < 50_000; i++) log.info("x".repeat(100));
    process.stderr.write("done");
    process.exit(7);`;
  const child = spawn(process.execPath, ["--input-type=module", "-e", program], { stdio: ["ignore", "pipe", "pipe"] });
  child.stdout.pause();
  let errors = "";
  child.stderr.on("data", (chunk) => {
    errors += chunk;
  });
  const code = await new Promise((resolve) => child.once("exit", resolve));
  expect({ code, errors }).toEqual({ code: 7, errors: "done" });
});

import { readFileSync, renameSync, statSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { AuditLog, type AuditSink, openAudit } from "../../src/server/security/audit.js";
import { temporaryFolder, until } from "../e2e/support.js";

class Memory implements AuditSink {
  lines: Record<string, unknown>[] = [];
  full = false;
  reopened = 0;

  write(line: string): boolean {
    expect(line.endsWith("\n")).toBe(true);
    if (!this.full) this.lines.push(JSON.parse(line) as Record<string, unknown>);
    return !this.full;
  }

  reopen(): void {
    this.reopened++;
  }

  lost(): number {
    return 0;
  }

  async close(): Promise<void> {}
}

function start() {
  const sink = new Memory();
  const time = { nowMs: 0 };
  const audit = new AuditLog(
    sink,
    () => time.nowMs,
    () => Date.UTC(2026, 10, 28),
  );
  return { sink, time, audit };
}

describe("the audit log", () => {
  it("has one line of JSON for each event", () => {
    const { sink, audit } = start();
    audit.act({ event: "force_release", principal: "jwt/ops", lock: "a\nb", token: 7, now: false, outcome: "OK" });
    expect(sink.lines).toEqual([
      {
        time: "2026-11-28T00:00:00.000Z",
        event: "force_release",
        principal: "jwt/ops",
        lock: "a\nb",
        token: 7,
        now: false,
        outcome: "OK",
      },
    ]);
  });

  it("tells so many refusals of one principal a minute, then how many more there were; acts always", () => {
    const { sink, time, audit } = start();
    for (let i = 0; i < 100; i++) audit.refusal({ event: "denied", principal: "token/a", lock: `${i}` });
    audit.refusal({ event: "denied", principal: "token/b" });
    for (let i = 0; i < 100; i++) audit.act({ event: "backup", principal: "token/a" });
    expect(sink.lines.filter(({ event, principal }) => event === "denied" && principal === "token/a")).toHaveLength(60);
    expect(sink.lines.filter(({ principal }) => principal === "token/b")).toHaveLength(1);
    expect(sink.lines.filter(({ event }) => event === "backup")).toHaveLength(100);
    time.nowMs = 60_000;
    audit.refusal({ event: "denied", principal: "token/a" });
    audit.refusal({ event: "denied", principal: "token/a" });
    expect(sink.lines.slice(-2).map(({ leftOutBefore }) => leftOutBefore)).toEqual([40, undefined]);
  });

  it("counts those who are not known by their address, without the port", () => {
    const { sink, audit } = start();
    for (let i = 0; i < 70; i++) audit.refusal({ event: "unauthenticated", address: `10.0.0.1:${i}` });
    audit.refusal({ event: "unauthenticated", address: "[::1]:1" });
    expect(sink.lines).toHaveLength(61);
  });

  it("tells a thousand principals apart, and takes the others as one", () => {
    const { sink, audit } = start();
    for (let i = 0; i < 2_000; i++) audit.refusal({ event: "denied", principal: `jwt/${i}` });
    expect(sink.lines).toHaveLength(1_060);
  });

  it("says how many lines were dropped", () => {
    const { sink, audit } = start();
    sink.full = true;
    for (let i = 0; i < 3; i++) audit.act({ event: "backup" });
    sink.full = false;
    audit.act({ event: "backup" });
    audit.act({ event: "backup" });
    expect(sink.lines.map(({ droppedBefore }) => droppedBefore)).toEqual([3, undefined]);
  });

  it("can be none", async () => {
    expect(openAudit("none", () => undefined)).toBeNull();
    const audit = new AuditLog(
      null,
      () => 0,
      () => 0,
    );
    audit.act({ event: "backup" });
    audit.refusal({ event: "denied" });
    audit.reopen();
    await audit.close();
  });
});

describe("a file", () => {
  it("is for its owner alone, is added to, and is opened anew when it was moved away", async () => {
    const path = join(await temporaryFolder(), "audit.jsonl");
    const errors: unknown[] = [];
    const first = openAudit(path, (error) => errors.push(error));
    first?.write("1\n");
    await first?.close();
    expect(readFileSync(path, "utf8")).toBe("1\n");
    const sink = openAudit(path, (error) => errors.push(error));
    sink?.write("2\n");
    await until(() => readFileSync(path, "utf8") === "1\n2\n");
    renameSync(path, `${path}.1`);
    sink?.reopen();
    sink?.write("3\n");
    await until(() => {
      try {
        return readFileSync(path, "utf8") === "3\n";
      } catch {
        return false;
      }
    });
    await sink?.close();
    expect(readFileSync(`${path}.1`, "utf8")).toBe("1\n2\n");
    expect(statSync(path).mode & 0o777).toBe(0o600);
    expect(errors).toEqual([]);
  });

  it("that cannot be written is refused", async () => {
    const path = join(await temporaryFolder(), "missing", "audit.jsonl");
    expect(() => openAudit(path, () => undefined)).toThrow(
      /auditLog: ".*audit.jsonl": it cannot be written \(ENOENT\)/,
    );
  });

  it("whose disk is full is reported once, loses what it has taken, counts it, and can be closed", async () => {
    const errors: { code?: string }[] = [];
    const sink = openAudit("/dev/full", (error) => errors.push(error as { code?: string }));
    const audit = new AuditLog(
      sink,
      () => 0,
      () => 0,
    );
    audit.act({ event: "backup" });
    await until(() => errors.length === 1);
    audit.act({ event: "backup" });
    expect(errors[0]?.code).toBe("ENOSPC");
    const line = `${"x".repeat(100_000)}\n`;
    const taken = Array.from({ length: 30 }, () => sink?.write(line)).filter(Boolean).length;
    expect([taken > 5, taken < 12]).toEqual([true, true]);
    await audit.close();
    expect(errors).toHaveLength(1);
    expect(sink?.lost()).toBe(taken + 1);
  });
});

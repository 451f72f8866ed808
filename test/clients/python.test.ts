// The example in Python, with Debian's grpcio: what a client in another language sees.
import { type ChildProcess, execFile, spawn } from "node:child_process";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { promisify } from "node:util";
import { connect } from "@leasehold/client";
import { beforeAll, expect, onTestFinished, test } from "vitest";
import { leasehold } from "../cli/support.js";
import { root, ServerProcess, temporaryFolder, until } from "../e2e/support.js";
import { need } from "../services/packages.mjs";
import { describeWithServices } from "../services/vitest.js";

const run = promisify(execFile);
const example = join(root, "examples/python");

/** A program in Python: lines in, lines out. */
class Python {
  readonly lines: string[] = [];
  errors = "";
  readonly exit: Promise<number | null>;
  readonly #child: ChildProcess;

  constructor(python: string, stubs: string, args: readonly string[]) {
    const env = { ...process.env, PYTHONPATH: `${stubs}:${example}`, PYTHONDONTWRITEBYTECODE: "1" };
    this.#child = spawn(python, args, { env, stdio: ["pipe", "pipe", "pipe"] });
    createInterface({ input: this.#child.stdout as NodeJS.ReadableStream }).on("line", (line) => this.lines.push(line));
    this.#child.stderr?.on("data", (chunk) => {
      this.errors += chunk;
    });
    this.exit = new Promise((resolve) => this.#child.once("close", resolve));
    onTestFinished(() => this.signal("SIGKILL"));
  }

  signal(signal: NodeJS.Signals): void {
    this.#child.kill(signal);
  }

  say(line: string): void {
    this.#child.stdin?.write(`${line}\n`);
  }

  async heard(what: (line: string) => boolean): Promise<string> {
    await until(() => this.lines.some(what), 30_000, `what was expected of Python (${this.lines}, ${this.errors})`);
    return this.lines.find(what) as string;
  }
}

/** Holds the lock, tells its token, and says after each line of input whether it still believes. */
const HOLD = `
import sys, grpc
from leasehold_lock import Lock, Lost
with grpc.insecure_channel(sys.argv[1]) as channel:
    lock = Lock(channel, "a", ttl=float(sys.argv[2]), wait=30.0, owner="python")
    print("token", lock.acquire(), flush=True)
    for line in sys.stdin:
        if line.strip() == "release":
            print("released", lock.release(), flush=True)
            break
        try:
            print("holds", lock.token, flush=True)
        except Lost:
            print("lost", flush=True)
`;

describeWithServices("a client in Python", ["python-grpc"], () => {
  let python = "";

  async function stubs(): Promise<string> {
    const folder = await temporaryFolder();
    const protos = ["admin", "clock", "lease", "lock", "session"].map((name) => `leasehold/v1/${name}.proto`);
    const args = ["-m", "grpc_tools.protoc", "-I", "proto", `--python_out=${folder}`, `--grpc_python_out=${folder}`];
    await run(python, [...args, ...protos], { cwd: root });
    return folder;
  }

  beforeAll(async () => {
    python = await need("python3-grpc");
  });

  test("several processes add to one file, and the SDK among them: nothing is lost, and tokens rise", async () => {
    const folder = await stubs();
    const server = await ServerProcess.start("memory:");
    const file = join(folder, "count");
    await writeFile(file, "0");
    const processes = [1, 2, 3].map(
      () => new Python(python, folder, [join(example, "count.py"), server.address, file, "15"]),
    );
    const client = await connect(server.address);
    onTestFinished(() => client.close());
    for (let i = 0; i < 15; i++) {
      await client.withLock("counter", async () => {
        await writeFile(file, String(Number(await readFile(file, "utf8")) + 1));
      });
    }
    expect(await Promise.all(processes.map(({ exit }) => exit))).toEqual([0, 0, 0]);
    expect(await readFile(file, "utf8")).toBe("60");
    for (const { lines } of processes) {
      const tokens = lines.map(Number);
      expect(tokens).toHaveLength(15);
      expect(tokens).toEqual(tokens.toSorted((a, b) => a - b));
    }
  });

  test("one that is stopped past its lease does not believe when it wakes", async () => {
    const folder = await stubs();
    const server = await ServerProcess.start("memory:");
    const holder = new Python(python, folder, ["-c", HOLD, server.address, "2"]);
    await holder.heard((line) => line.startsWith("token"));
    holder.say("?");
    expect(await holder.heard((line) => line.startsWith("holds"))).toMatch(/^holds \d+$/);
    holder.signal("SIGSTOP");
    const client = await connect(server.address);
    onTestFinished(() => client.close());
    const next = await client.acquire("a", { wait: "20s" });
    holder.say("?");
    holder.signal("SIGCONT");
    await holder.heard((line) => line === "lost");
    holder.say("release");
    expect(await holder.heard((line) => line.startsWith("released"))).toBe("released False");
    expect(next.state.is).toBe("held");
  });

  test("one that renews outlives its TTL; one whose lock is taken away notices, and its release confirms", async () => {
    const folder = await stubs();
    const server = await ServerProcess.start("memory:");
    const holder = new Python(python, folder, ["-c", HOLD, server.address, "1.5"]);
    await holder.heard((line) => line.startsWith("token"));
    const client = await connect(server.address);
    onTestFinished(() => client.close());
    await until(async () => ((await client.describe("a")).holders[0]?.heldMs ?? 0) > 3_000);
    expect((await client.describe("a")).holders[0]?.owner).toBe("python");
    const forced = leasehold(["release", "a", "--force", "--yes", "--addr", server.address]);
    await until(() => {
      holder.say("?");
      return holder.lines.includes("lost");
    });
    holder.say("release");
    expect(await holder.exit).toBe(0);
    expect((await forced).code).toBe(0);
  });

  test("one that gives up while it waits leaves no place in the queue", async () => {
    const folder = await stubs();
    const server = await ServerProcess.start("memory:");
    const client = await connect(server.address);
    onTestFinished(() => client.close());
    const held = await client.acquire("a");
    const waiter = new Python(python, folder, ["-c", HOLD, server.address, "9"]);
    await until(async () => (await client.describe("a")).waitersTotal === 1);
    waiter.signal("SIGINT");
    await waiter.exit;
    expect(waiter.errors).toContain("KeyboardInterrupt");
    expect((await client.describe("a")).waitersTotal).toBe(0);
    expect(held.state.is).toBe("held");
  });
});

/** What the services are built of: processes that are ended, their folders, and ports. */
import { existsSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";
import { expect, onTestFinished, test } from "vitest";
import { freePorts, onFreePorts } from "./ports.mjs";
import { isAlive, removeFolder, run, ServerProcess, temporaryFolder, until } from "./processes.mjs";

/** A server in shell: says "ready" when it is. */
function spec(script: string, changes: Partial<Parameters<typeof ServerProcess.start>[0]> = {}) {
  const folder = temporaryFolder("test");
  onTestFinished(() => removeFolder(folder));
  return {
    name: "a server",
    folder,
    command: ["sh", "-c", script],
    ready: (log: string) => log.includes("ready"),
    ...changes,
  };
}

test("a server that ends in place of serving: the error has its exit code and its words", async () => {
  await expect(ServerProcess.start(spec("echo no such table >&2; exit 3"))).rejects.toThrow(
    /a server did not start: it ended \(3\)\nno such table/,
  );
  const missing = spec("", { command: ["/nowhere/server"] });
  await expect(ServerProcess.start(missing)).rejects.toThrow(/it ended \(127\)[\s\S]*\/nowhere\/server/);
});

test("what a server has started is ended with it, also when it ends by itself", async () => {
  const server = await ServerProcess.start(spec("sleep 1000 & echo pid $! ready; wait"));
  const grandchild = Number(/pid (\d+)/.exec(server.log)?.[1]);
  expect(isAlive(grandchild)).toBe(true);
  server.signal("SIGKILL"); // to itself alone
  await until(() => !isAlive(grandchild), { what: "the end of the grandchild" });
});

test("a server that ignores the signal is killed after a grace time, also when it is stopped", async () => {
  const server = await ServerProcess.start(spec("trap '' TERM; echo ready; sleep 1000", { endSignal: "SIGTERM" }));
  server.signal("SIGSTOP");
  await server.end();
  expect(server.running).toBe(false);
  expect(isAlive(server.pid)).toBe(false);
});

test("only what has been said since its start counts as ready", async () => {
  const gate = spec(`[ -e first ] && { echo late; exit 1; }; touch first; echo ready; sleep 1000`);
  const server = await ServerProcess.start(gate);
  await server.kill9();
  await expect(server.start()).rejects.toThrow("late");
  expect(existsSync(join(gate.folder, "first"))).toBe(true);
});

test("the log is bounded", async () => {
  const server = await ServerProcess.start(
    spec(
      "i=0; while [ $i -lt 20000 ]; do echo 'a line that is not short, of which there are many'; i=$((i+1)); done; echo ready; sleep 1000",
    ),
  );
  onTestFinished(() => server.kill9());
  expect(server.log.length).toBeLessThanOrEqual(400_000);
  expect(server.log.length).toBeGreaterThan(100_000);
});

test("run() gives what was printed, and the error of what failed", async () => {
  expect(await run(["cat"], { input: "hello" })).toBe("hello");
  await expect(run(["sh", "-c", "echo wrong >&2; exit 4"])).rejects.toThrow("sh failed (4): wrong");
  await expect(run(["/nowhere/program"])).rejects.toThrow("ENOENT");
});

test("free ports are different, free, and not those of outgoing connections", async () => {
  const ports = await freePorts(50);
  expect(new Set(ports).size).toBe(50);
  const servers = await Promise.all(
    ports.map(
      (port) =>
        new Promise<ReturnType<typeof createServer>>((resolve, reject) => {
          const server = createServer().on("error", reject);
          server.listen(port, "127.0.0.1", () => resolve(server));
        }),
    ),
  );
  onTestFinished(() => servers.forEach((server) => void server.close()));
  const outgoing = createServer();
  await new Promise<void>((resolve) => outgoing.listen(0, "127.0.0.1", resolve));
  onTestFinished(() => void outgoing.close());
  expect(Math.max(...ports)).toBeLessThan((outgoing.address() as { port: number }).port);
});

test("a server that finds its port taken is started on another one", async () => {
  const taken = createServer();
  await new Promise<void>((resolve) => taken.listen(0, "127.0.0.1", resolve));
  onTestFinished(() => void taken.close());
  const { port: takenPort } = taken.address() as { port: number };
  const tried: number[] = [];
  const program = temporaryFolder("listener");
  const file = join(program, "listen.mjs");
  writeFileSync(
    file,
    `import { createServer } from "node:net";
     createServer().listen(Number(process.argv[2]), "127.0.0.1", () => console.log("serving"));`,
  );
  const server = await onFreePorts(1, (port) => {
    tried.push(port as number);
    const use = tried.length === 1 ? takenPort : port;
    return ServerProcess.start(
      spec("", { command: [process.execPath, file, String(use)], ready: (log) => log.includes("serving") }),
    );
  });
  onTestFinished(() => server.kill9());
  expect(tried).toHaveLength(2);
  await expect(onFreePorts(1, () => Promise.reject(new Error("another trouble")))).rejects.toThrow("another trouble");
});

// A command for `leasehold run` that is hard to end: `node tree.mjs FOLDER [ROLE...]`. Each process writes its id to
// FOLDER/pids when it stands, and the monotonic time to FOLDER/beats for as long as it lives. Roles, one a process, each
// started by the one before: "obedient" ends at SIGTERM, "stubborn" ignores it, "session" is stubborn in a session of
// its own, "stopped" stops itself.
import { spawn } from "node:child_process";
import { appendFileSync } from "node:fs";
import { join } from "node:path";

const [, self, folder, role, ...others] = process.argv;
if (role !== "obedient") process.on("SIGTERM", () => appendFileSync(join(folder, "asked"), `${process.pid}\n`));
if (others.length > 0) {
  const detached = others[0] === "session";
  spawn(process.execPath, [self, folder, ...others], { stdio: "ignore", detached });
}
setInterval(() => appendFileSync(join(folder, "beats"), `${Number(process.hrtime.bigint()) / 1e6}\n`), 5);
appendFileSync(join(folder, "pids"), `${process.pid}\n`);
if (role === "stopped") process.kill(process.pid, "SIGSTOP");

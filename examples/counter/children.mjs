/** Child processes end with this process, however it ends; also those that are paused. */
const children = new Set();

/** @param {import("node:child_process").ChildProcess} child */
export function endsWithUs(child) {
  children.add(child);
  child.once("exit", () => children.delete(child));
  return child;
}

process.on("exit", () => {
  for (const child of children) child.kill("SIGKILL");
});
for (const signal of ["SIGINT", "SIGTERM"]) process.on(signal, () => process.exit(1));

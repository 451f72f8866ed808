/** A server that was killed leaves its unix socket behind, and nobody can bind to that path again before it is gone. */
import { lstatSync, unlinkSync } from "node:fs";
import { connect } from "node:net";

/** The path of a `unix:` target, else undefined. Both `unix:path` and `unix:///path` are usual. */
export function unixPath(target: string): string | undefined {
  if (!target.startsWith("unix:")) return undefined;
  const path = target.slice("unix:".length);
  return path.startsWith("//") ? path.slice(2) : path;
}

/** Removes the socket at `path` if nobody listens on it. Anything else that is there stays. */
export async function removeStaleSocket(path: string): Promise<void> {
  const found = lstatSync(path, { throwIfNoEntry: false });
  if (found?.isSocket() && (await isDead(path))) unlinkSync(path);
}

function isDead(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(path);
    socket.once("connect", () => {
      socket.destroy();
      resolve(false);
    });
    socket.once("error", (error: NodeJS.ErrnoException) => resolve(error.code === "ECONNREFUSED"));
  });
}

/** Starts processes that stand still in the middle of a fenced write: see holder-process.mjs. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import type { StoppedHolder } from "./conformance.js";

const script = fileURLToPath(new URL("./holder-process.mjs", import.meta.url));
/** Starting Node and connecting, on a busy machine. */
const INSIDE_MS_MAX = 30_000;

interface Said {
  readonly inside?: true;
  readonly ended?: string;
}

function started(child: ChildProcess): StoppedHolder {
  const ended = new Promise<string>((resolve) => {
    child.on("message", (message: Said) => {
      if (message.ended !== undefined) resolve(message.ended);
    });
    child.on("exit", (code, signal) => resolve(`exit ${code ?? signal}`));
  });
  return {
    async kill() {
      const gone = once(child, "exit");
      child.kill("SIGKILL");
      await gone;
    },
    stop() {
      child.kill("SIGSTOP");
    },
    async goOn() {
      child.kill("SIGCONT");
      child.send("go on", () => {}); // it may have died of its broken connection
      return ended;
    },
  };
}

const running = new Set<ChildProcess>();
process.on("exit", () => {
  for (const child of running) child.kill("SIGKILL");
});

/**
 * `module`: the path of a module as holder-process.mjs wants it. `config`: what its `open` gets, as JSON. Resolves when the
 * process stands still inside.
 */
export async function startHolder(
  module: string,
  config: unknown,
  name: string,
  token: number,
  remainingMs: number,
  value: string,
): Promise<StoppedHolder> {
  const job = JSON.stringify({ module, config, claim: { name, token, remainingMs }, value });
  const child = spawn(process.execPath, [script, job], { stdio: ["ignore", "ignore", "inherit", "ipc"] });
  running.add(child);
  child.on("exit", () => running.delete(child));
  const holder = started(child);
  const signal = AbortSignal.timeout(INSIDE_MS_MAX);
  const [first] = (await once(child, "message", { signal })) as [Said];
  if (first.inside) return holder;
  throw new Error(`the holder ended before it was inside: ${first.ended}`);
}

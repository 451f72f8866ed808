/** A real server, on a real port, in the test's own process: for tests that do nothing to the server itself. */
import { onTestFinished } from "vitest";
import { defaultConfig, startServer } from "../../src/server/index.js";

export interface Address {
  readonly address: string;
}

/** Starts in a few milliseconds, where a process takes half a second of a processor. */
export async function memoryServer(): Promise<Address> {
  const options = { store: "memory:", listen: "127.0.0.1:0", opsListen: "none", drainMsMax: 200 };
  const server = await startServer(defaultConfig(options));
  onTestFinished(() => server.stop());
  return server;
}

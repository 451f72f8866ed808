/** A network in which nothing gets through for a while: how a replica of Redis falls behind and still answers. */
import { once } from "node:events";
import { connect, createServer } from "node:net";

/** Passes on all bytes to that port, from a port of its own. */
export async function slowLink(port) {
  const sources = new Set();
  let paused = false;
  const server = createServer((near) => {
    const far = connect(port, "127.0.0.1");
    for (const [from, to] of [
      [near, far],
      [far, near],
    ]) {
      sources.add(from);
      from.on("data", (chunk) => to.write(chunk));
      from.on("error", () => to.destroy());
      from.on("close", () => {
        sources.delete(from);
        to.destroy();
      });
      if (paused) from.pause();
    }
  }).listen(0, "127.0.0.1");
  await once(server, "listening");
  return {
    port: server.address().port,
    pause() {
      paused = true;
      for (const socket of sources) socket.pause();
    },
    resume() {
      paused = false;
      for (const socket of sources) socket.resume();
    },
    close() {
      server.close();
      for (const socket of sources) socket.destroy();
    },
  };
}

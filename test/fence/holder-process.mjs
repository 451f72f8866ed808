/**
 * A process that makes one fenced write and stands still in the middle of it. Started by holder.ts, with the path of a
 * module that exports
 *
 *     open(config): Promise<(claim, value, inside: () => Promise<void>) => Promise<void>>
 *
 * The function that it resolves to makes the write, and awaits `inside()` as late as its adapter permits.
 */
import { once } from "node:events";

const { module, config, claim, value } = JSON.parse(process.argv[2]);
process.on("disconnect", () => process.exit(1));
process.on("uncaughtException", (error) => end(error?.code ?? String(error))); // a driver's connection that broke

function end(ended) {
  process.send({ ended }, () => process.exit(0));
}

async function inside() {
  const goOn = once(process, "message");
  process.send({ inside: true });
  await goOn;
}

const { open } = await import(module);
try {
  const write = await open(config);
  await write(claim, value, inside);
  end("written");
} catch (error) {
  end(error?.code ?? String(error));
}

// A client that holds a lock and then does not run for a while. Prints one JSON line per step; acts on lines of stdin.
import { createInterface } from "node:readline";
import { connect } from "@leasehold/client";

const [address, name, ttl] = process.argv.slice(2);
const say = (entry) => process.stdout.write(`${JSON.stringify(entry)}\n`);

const client = await connect(address, { ttl });
const lock = await client.acquire(name);
let lost = 0;
lock.on("lost", () => lost++);
say({ step: "held", token: lock.token });

function believed() {
  // What a program sees that looks before any timer of the SDK has run.
  let token = null;
  let code = null;
  try {
    token = lock.token;
  } catch (error) {
    code = error.code;
  }
  return { token, code, state: lock.state.is, reason: lock.state.reason ?? null, aborted: lock.signal.aborted };
}

createInterface({ input: process.stdin }).on("line", (line) => {
  if (line === "look") {
    say({ step: "looked", ...believed() });
  } else if (line.startsWith("busy ")) {
    const end = performance.now() + Number(line.slice(5));
    while (performance.now() < end);
    say({ step: "looked", ...believed() });
  } else if (line === "end") {
    client.close().then(() => process.exit(0));
  }
});

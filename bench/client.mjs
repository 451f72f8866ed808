/** The load, in a process of its own: takes one order after the other from its parent and answers with the figures. */
import { connect } from "@leasehold/client";
import { measure } from "./meter.mjs";
import { handover, pairs, permits, readers, renewals, sets, unaryPairs, watchedPairs } from "./workloads.mjs";

const address = process.argv[2];
const client = await connect(address);

const workloads = {
  pairs: (n) => pairs(client, n),
  readers: (n) => readers(client, n),
  permits: (n) => permits(client, n),
  sets: (n) => sets(client, n),
  watchedPairs: (n) => watchedPairs(client, n),
  handover: (n) => handover(client, n),
  unary: (n) => unaryPairs(address, n),
  renewals: (n) => renewals(address, n),
};

process.on("message", async (order) => {
  if (order === "end") {
    await client.close();
    process.disconnect();
    return;
  }
  process.send(await measure(order.plan, workloads[order.workload](order.size)));
});
process.on("disconnect", () => process.exit(0));
process.send("ready");

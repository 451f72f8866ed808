/** A holder that stands still with its floor raised and its write not yet sent. See holder-process.mjs. */
import { etcdFence, etcdGateway } from "@leasehold/fence/etcd";

export async function open({ url }) {
  const kv = etcdGateway(url);
  await etcdFence(kv).raise({ name: "warm up", token: 1 });
  return async (claim, value, inside) => {
    const halting = {
      range: (request) => kv.range(request),
      async txn(request) {
        if (JSON.stringify(request).includes(Buffer.from(value).toString("base64"))) await inside();
        return kv.txn(request);
      },
    };
    const fence = etcdFence(halting);
    await fence.raise(claim);
    await fence.put(claim, `register/${claim.name}`, value);
  };
}

/** What the fence adds to a put in etcd, by its JSON gateway. */
import { etcdFence, etcdGateway, putOp } from "@leasehold/fence/etcd";
import { startEtcd } from "../../test/services/etcd.mjs";

const LOCK = { name: "bench", token: 1_000_000 };
const VALUE = "x".repeat(100);

export async function open() {
  const server = await startEtcd();
  const kv = etcdGateway(server.url);
  const fence = etcdFence(kv);
  await fence.raise(LOCK);
  return {
    rows: [
      {
        title: "etcd, put",
        plain: () => kv.txn({ success: [putOp("bench", VALUE)] }).then(() => {}),
        fenced: () => fence.put(LOCK, "bench", VALUE),
      },
    ],
    close: () => server.stop(),
  };
}

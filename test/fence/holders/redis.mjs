/** A holder that stands still with its floor raised and its write not yet sent. See holder-process.mjs. */
import { redisFence } from "@leasehold/fence/redis";
import { Cluster, Redis } from "ioredis";
import { createClient, createCluster } from "redis";

const drivers = {
  ioredis: async ({ url }) => new Redis(url),
  "ioredis cluster": async ({ url }) => new Cluster([url]),
  "node-redis": ({ url }) => createClient({ url }).connect(),
  "node-redis cluster": ({ url }) => createCluster({ rootNodes: [{ url }] }).connect(),
};

export async function open(config) {
  const client = await drivers[config.driver](config);
  const fence = redisFence(client);
  return async (claim, value, inside) => {
    await fence.raise(claim);
    const evalSha = "evalSha" in client ? "evalSha" : "evalsha";
    const send = client[evalSha].bind(client);
    client[evalSha] = async (...args) => {
      await inside();
      return send(...args);
    };
    await fence.set(claim, `{${fence.tag(claim.name)}}:register`, value);
  };
}

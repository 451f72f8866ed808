/**
 * As rabbitmq.mjs, under a real lock of a real server: it acquires the lock, and stands still with a message in hand that
 * was checked and stamped while the lock was held.
 */
import { connect } from "@leasehold/client";
import { open as openClaimed } from "./rabbitmq.mjs";

export async function open({ leasehold, ttl, ...config }) {
  const client = await connect(leasehold);
  const write = await openClaimed(config);
  return async ({ name }, value, inside) => {
    const lock = await client.acquire(name, { ttl });
    await write(lock, value, inside);
  };
}

/**
 * A holder that stands still with everything checked and its request not yet sent. See holder-process.mjs. What would
 * abort the request when its time is over is taken out: it is the service that has to refuse it.
 */
import { fencedFetch } from "@leasehold/fence/http";

export async function open({ url, headers }) {
  return async (claim, value, inside) => {
    const halting = async (input, init) => {
      await inside();
      return fetch(input, { ...init, signal: null });
    };
    const send = fencedFetch(claim, { fetch: halting });
    const path = `/registers/${encodeURIComponent(claim.name)}`;
    const response = await send(url + path, { method: "PUT", headers, body: value });
    if (!response.ok) throw new Error(`answered ${response.status}`);
  };
}

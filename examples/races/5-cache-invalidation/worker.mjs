/** A process that reads the prices of products, or changes them. Started by race.mjs. */
import { atWork, done } from "../common/worker.mjs";
import { openShop } from "./shop.mjs";

const { job, report, point } = atWork();
const { ids, price } = job;
const shop = await openShop(job, { loaded: together("loaded"), committed: together("committed") });
await point("ready");
if (price === undefined) await shop.prices(ids);
else await shop.changeAll(ids, price);
await shop.close();
done();

/** A point at which all are held together: those who have come there wait for the last one. */
function together(name) {
  let arrived = 0;
  let all;
  const opened = new Promise((resolve) => {
    all = resolve;
  });
  return async () => {
    report({ [name]: true });
    if (!job.together) return;
    arrived++;
    if (arrived === ids.length) all(point(name));
    await opened;
  };
}

/** A service: PUT writes the order, GET reads it. Started twice by race.mjs, one to write to and one to read from. */
import { once } from "node:events";
import { createServer } from "node:http";
import { atWork } from "../common/worker.mjs";
import { causalPostgres, causalRedis, plainPostgres, plainRedis } from "./stores.mjs";

const { job, report } = atWork();
const store = { causalPostgres, causalRedis, plainPostgres, plainRedis }[job.store](job);

async function text(stream) {
  let all = "";
  for await (const chunk of stream.setEncoding("utf8")) all += chunk;
  return all;
}

const server = createServer(async (request, response) => {
  try {
    const headers = {};
    const answer =
      request.method === "PUT" ? await store.write(await text(request), headers) : await store.read(request.headers);
    response.writeHead(200, headers).end(JSON.stringify(request.method === "PUT" ? {} : answer));
  } catch (error) {
    response.writeHead(500).end(String(error));
  }
}).listen(0, "127.0.0.1");
await once(server, "listening");
report({ url: `http://127.0.0.1:${server.address().port}` });

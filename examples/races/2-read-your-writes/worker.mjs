/** A service that saves and shows profiles over HTTP: `/postgres/plain/7`, `/redis/causal/7`. Started by race.mjs. */
import { once } from "node:events";
import { createServer } from "node:http";
import { Redis } from "ioredis";
import pg from "pg";
import { atWork } from "../common/worker.mjs";
import { inPostgres, inRedis, saveCausally, savePlainly, showCausally, showPlainly } from "./profiles.mjs";

const { job, report } = atWork();
const { waitMs } = job;

function pool(connectionString) {
  const made = new pg.Pool({ connectionString, connectionTimeoutMillis: waitMs });
  made.on("error", () => {}); // an idle connection that broke is replaced
  return made;
}

function connection(url) {
  const made = new Redis(url);
  made.on("error", () => {}); // it connects again
  return made;
}

const systems = {
  postgres: inPostgres({ primary: pool(job.postgres.primary), replica: pool(job.postgres.replica), waitMs }),
  redis: inRedis({ primary: connection(job.redis.primary), replica: connection(job.redis.replica), waitMs }),
};
const ways = {
  plain: { save: savePlainly, show: showPlainly },
  causal: { save: saveCausally, show: showCausally },
};

async function answer(request, response) {
  const [, system, way, id] = request.url.split("/");
  const { save, show } = ways[way];
  if (request.method === "GET") {
    report({ asked: id });
    response.end(JSON.stringify(await show(systems[system], { id, headers: request.headers })));
  } else {
    const { name } = request.headers;
    const headers = await save(systems[system], { id, name, location: job.showAt + request.url });
    response.writeHead(303, headers).end();
  }
}

const server = createServer((request, response) => {
  answer(request, response).catch((error) => response.writeHead(500).end(String(error)));
}).listen(0, "127.0.0.1");
await once(server, "listening");
report({ url: `http://127.0.0.1:${server.address().port}` });

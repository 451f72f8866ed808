import { expect, test } from "vitest";
import { RawSession } from "./raw-session.js";
import { ServerProcess, temporaryFolder } from "./support.js";
import { load, mulberry32, Told, verify } from "./told.js";

const ROUNDS = Number(process.env.LEASEHOLD_KILL_ROUNDS ?? 50);

test(`kill -9 at random moments under load, ${ROUNDS} rounds: what was acknowledged is there, tokens only rise`, async () => {
  const seed = Number(process.env.LEASEHOLD_SEED ?? Date.now() % 1e9);
  console.log(`seed ${seed}`);
  const random = mulberry32(seed);
  const told = new Told();
  const server = await ServerProcess.start(`level:${await temporaryFolder()}/data`);
  for (let round = 1; round <= ROUNDS; round++) {
    const before = told.highestToken;
    const { close } = await load(server, told, `round-${round}`, 1 + Math.floor(random() ** 2 * 4_000), random);
    await server.kill();
    close();
    await server.restart();
    await verify(server, told);
    const session = await RawSession.open(server.address);
    await session.send({ createLease: { ttlMs: 3_600_000 } });
    const { acquire } = await session.send({ acquire: { name: `after-${round}`, sessionLease: 1 } });
    expect(acquire?.grant?.token, "a token above all seen").toBeGreaterThan(Math.max(before, told.highestToken));
    session.close();
  }
  console.log(
    `${told.grants} grants, ${told.releases} releases acknowledged; ${told.held.size} holds kept over ${ROUNDS} kills`,
  );
  expect(await server.stop()).toBe(0);
}, 600_000);

/** Elections on a real server: candidates hand over, connections break, the server dies; observers see it in order. */
import { expect, onTestFinished, test } from "vitest";
import { type Client, type ConnectOptions, connect, type Leader } from "../../src/client/index.js";
import { Network, ServerProcess, temporaryFolder, until } from "./support.js";
import { UnaryClient } from "./unary-client.js";

async function client(address: string, options: ConnectOptions = {}): Promise<Client> {
  const connected = await connect(address, options);
  connected.on("warning", () => undefined);
  onTestFinished(() => connected.close({ timeout: "1s" }));
  return connected;
}

const newServer = async () => ServerProcess.start(`level:${await temporaryFolder()}/data`);

function observe(observer: Client, name: string): (Leader | null)[] {
  const seen: (Leader | null)[] = [];
  const loop = async () => {
    for await (const leader of observer.observe(name)) seen.push(leader);
  };
  void loop().catch(() => undefined);
  return seen;
}

/** Tokens never fall; the same one comes again with a new value, or after a reset that could not say more. */
function checkOrder(seen: readonly (Leader | null)[]): number[] {
  const leaders = seen.filter((leader) => leader !== null);
  const tokens = leaders.map(({ token }) => token);
  expect(tokens, "never an older leader after a newer one").toEqual([...tokens].sort((a, b) => a - b));
  for (const [i, leader] of leaders.entries()) {
    if (leader.token === leaders[i - 1]?.token) expect(leader.valueText).not.toBe(leaders[i - 1]?.valueText);
  }
  return [...new Set(tokens)];
}

test("two candidates hand over many times, and each leader is seen, in order, with what it proclaims", async () => {
  const server = await newServer();
  const names = ["one", "two"];
  const seen = observe(await client(server.address), "e");
  await until(() => seen.length === 1);
  expect(seen).toEqual([null]);
  const led: number[] = [];
  const candidate = async (name: string) => {
    const standing = await client(server.address, { owner: name });
    for (let i = 0; i < 50; i++) {
      await standing.lead("e", { value: name }, async (me) => {
        led.push(me.token);
        await me.proclaim(`${name}, ready`);
      });
    }
  };
  await Promise.all(names.map(candidate));
  await until(
    () => seen.at(-1) === null && seen.filter((leader) => leader?.valueText.endsWith("ready")).length === 100,
  );
  expect(led).toEqual([...led].sort((a, b) => a - b));
  expect(checkOrder(seen)).toEqual(led);
  for (const leader of seen) if (leader) expect([leader.owner, `${leader.owner}, ready`]).toContain(leader.valueText);
}, 60_000);

test("over kills of the server, leaders are seen in order, and the last is the present one", async () => {
  const server = await newServer();
  const seen = observe(await client(server.address), "e");
  const stop = new AbortController();
  const led: number[] = [];
  let handOver: () => void = () => undefined;
  const candidate = async (name: string) => {
    const standing = await client(server.address, { owner: name });
    while (!stop.signal.aborted) {
      await standing.lead("e", { value: name, signal: stop.signal }, async (me) => {
        led.push(me.token);
        await new Promise<void>((resolve) => {
          handOver = resolve;
          me.signal.addEventListener("abort", () => resolve());
        });
      });
    }
  };
  const over = Promise.all(["one", "two", "three"].map(candidate));
  let handed = 0;
  for (let round = 0; round < 4; round++) {
    for (let i = 0; i < 5; i++) {
      await until(() => led.length > handed);
      handed = led.length;
      handOver();
    }
    await until(() => led.length > handed);
    await server.kill();
    await server.restart();
    await until(() => seen.at(-1)?.token === led.at(-1), 20_000, "the observer knows the present leader");
  }
  stop.abort();
  await over;
  await until(() => seen.at(-1) === null);
  const tokens = checkOrder(seen);
  expect(led).toEqual([...led].sort((a, b) => a - b));
  expect(led.filter((token) => tokens.includes(token))).toEqual(tokens);
}, 60_000);

test("a leader that is cut off loses its office, and stands again when it is back", async () => {
  const server = await newServer();
  const network = await Network.to(server.address);
  const seen = observe(await client(server.address), "e");
  const stop = new AbortController();
  const terms: string[] = [];
  const stand = async (standing: Client, name: string, handOver: Promise<void>) => {
    await standing.lead("e", { value: name, ttl: "1s", signal: stop.signal }, async (me) => {
      terms.push(name);
      await Promise.race([
        handOver,
        new Promise<void>((resolve) => me.signal.addEventListener("abort", () => resolve())),
      ]);
    });
  };
  const never = new Promise<void>(() => undefined);
  const first = stand(await client(network.address), "first", never);
  await until(() => terms.length === 1);
  let resign: () => void = () => undefined;
  const second = stand(await client(server.address), "second", new Promise((resolve) => (resign = resolve)));
  network.refuse();
  network.cut();
  await until(() => terms.length === 2);
  expect(terms).toEqual(["first", "second"]);
  network.accept();
  const observer = await client(server.address);
  await until(async () => (await observer.describe("e")).waitersTotal === 1, 20_000, "the first stands again");
  resign();
  await second;
  await until(() => terms.length === 3);
  expect(terms).toEqual(["first", "second", "first"]);
  stop.abort();
  await first;
  await until(() => seen.at(-1) === null && seen.length > 1);
  checkOrder(seen);
  expect(seen.filter((leader) => leader !== null).map(({ valueText }) => valueText)).toEqual(terms);
}, 60_000);

test("a leader that is deposed has stopped before the next one begins, and stands again", async () => {
  const server = await newServer();
  const admin = new UnaryClient(server.address);
  const stop = new AbortController();
  const log: string[] = [];
  const candidate = async (name: string) => {
    const standing = await client(server.address, { owner: name });
    await standing.lead("e", { signal: stop.signal }, async (me) => {
      log.push(`${name} begins`);
      await new Promise((resolve) => me.signal.addEventListener("abort", resolve));
      const { state } = me;
      if (state.is === "lost") log.push(state.reason);
      await Promise.all([standing.validate("e", me.grant.token), standing.clock.range(1)]); // it takes a while to stop
      log.push(`${name} has stopped`);
    });
  };
  const over = [candidate("one")];
  await until(() => log.length === 1);
  over.push(candidate("two"));
  const observer = await client(server.address);
  for (const [i, name] of ["one", "two", "one"].entries()) {
    await until(async () => log.at(-1) === `${name} begins` && (await observer.describe("e")).waitersTotal === 1);
    await admin.call("ForceRelease", { name: "e", reason: `reason ${i}` });
  }
  await until(() => log.at(-1) === "two begins");
  const term = (name: string) => [`${name} begins`, "forced", `${name} has stopped`];
  expect(log).toEqual([...term("one"), ...term("two"), ...term("one"), "two begins"]);
  stop.abort();
  await Promise.all(over);
}, 60_000);

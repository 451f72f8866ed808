/**
 * What admission alone does not do, and turns do: a request that was admitted with an older token has ended before one with
 * a newer token begins.
 */
import { on, once } from "node:events";
import { type ClientRequest, type IncomingMessage, request } from "node:http";
import { text } from "node:stream/consumers";
import { fencedFetch, httpFenceClient, memoryStore } from "@leasehold/fence/http";
import { afterEach, describe, expect, it } from "vitest";
import { credentials, ENDPOINT, type Framework, Service, type Settings, type Work } from "./http-service.js";

const cleanups: (() => unknown)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

async function start(framework: Framework, settings: Partial<Settings>, work?: Work): Promise<Service> {
  const service = await Service.start(framework, { store: memoryStore(), ...settings }, work);
  cleanups.push(() => service.close());
  return service;
}

async function until(condition: () => boolean, what: string): Promise<void> {
  const deadlineMs = performance.now() + 10_000;
  while (!condition()) {
    if (performance.now() > deadlineMs) throw new Error(`not within 10 s: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
}

/** A handler that stands still, for those values that a test says. */
class Gate {
  readonly entered: string[] = [];
  readonly left: string[] = [];
  readonly #waiting = new Map<string, () => void>();

  /** Values that begin with "slow" wait until they are let go. */
  readonly work: Work = async (_resource, value) => {
    this.entered.push(value);
    if (value.startsWith("slow")) await new Promise<void>((resolve) => this.#waiting.set(value, resolve));
    this.left.push(value);
    return "";
  };

  letGo(value: string): void {
    this.#waiting.get(value)?.();
  }

  inside(value: string): Promise<void> {
    return until(() => this.entered.includes(value), `${value} is inside`);
  }
}

const write = (service: Service, token: number, value: string, more: Record<string, string> = {}, path = "a") =>
  fetch(`${service.url}/registers/${path}`, {
    method: "PUT",
    headers: { ...credentials, "Fencing-Token": String(token), ...more },
    body: value,
  });

/** Resolves when the server has seen that the caller of the next request with this token is gone. */
async function closing(service: Service, token: number): Promise<void> {
  for await (const [req, res] of on(service.server, "request")) {
    if (req.headers["fencing-token"] !== String(token)) continue;
    await once(res, "close");
    return;
  }
}

const shared = { "Fencing-Mode": "shared" };

/** Whether something has been answered already. */
function watched(answer: Promise<Response>): { done: boolean; answer: Promise<Response> } {
  const state = { done: false, answer };
  answer.then(
    () => (state.done = true),
    () => (state.done = true),
  );
  return state;
}

describe.each(["node", "express", "fastify"] as const)("with %s", (framework) => {
  it("without turns: the slow handler of a stale holder writes last", async () => {
    const gate = new Gate();
    const service = await start(framework, { serialize: false }, gate.work);
    const old = write(service, 33, "slow 33");
    await gate.inside("slow 33");
    expect((await write(service, 34, "34")).status).toBe(200);
    expect(service.registers.get("a")).toBe("34");
    gate.letGo("slow 33");
    expect((await old).status).toBe(200);
    expect(service.registers.get("a")).toBe("slow 33"); // the race: an update is lost
  });

  it("with turns: the newer holder waits until the older one's handler has ended", async () => {
    const gate = new Gate();
    const told: (boolean | undefined)[] = [];
    const service: Service = await start(framework, { serialize: true }, async (resource, value, req) => {
      await gate.work(resource, value, req);
      told.push(service.fence.of(req)?.signal.aborted); // asked for when it is too late already
      return "";
    });
    const old = write(service, 33, "slow 33");
    await gate.inside("slow 33");
    const newer = watched(write(service, 34, "34"));
    // From its arrival on nothing older is let in.
    await floorIs(service, "a", 34);
    expect((await write(service, 33, "late")).status).toBe(409);
    expect(newer.done).toBe(false);
    expect(gate.entered).toEqual(["slow 33"]);
    gate.letGo("slow 33");
    expect((await old).status).toBe(200);
    expect((await newer.answer).status).toBe(200);
    expect(gate.left).toEqual(["slow 33", "34"]);
    expect(told).toEqual([true, false]);
    expect(service.registers.get("a")).toBe("34");
  });

  it("with turns: a handler whose caller has hung up has not ended", async () => {
    const gate = new Gate();
    const service = await start(framework, { serialize: true }, gate.work);
    const hangUp = new AbortController();
    const gone = closing(service, 33);
    const old = fetch(`${service.url}/registers/a`, {
      method: "PUT",
      headers: { ...credentials, "Fencing-Token": "33" },
      body: "slow 33",
      signal: hangUp.signal,
    });
    await gate.inside("slow 33");
    hangUp.abort();
    await expect(old).rejects.toThrow();
    await gone; // the response is closed, and the handler still works
    const newer = watched(write(service, 34, "34"));
    await floorIs(service, "a", 34);
    expect((await write(service, 33, "late")).status).toBe(409);
    expect(newer.done).toBe(false);
    gate.letGo("slow 33");
    expect((await newer.answer).status).toBe(200);
    expect(gate.left).toEqual(["slow 33", "34"]);
    expect(service.registers.get("a")).toBe("34");
  });

  it("with turns: a handler that fails has ended", async () => {
    const service = await start(framework, { serialize: true }, async (_resource, value) => {
      if (value === "33") throw new Error("a bug");
      return "";
    });
    if (framework !== "node") expect((await write(service, 33, "33")).status).toBe(500);
    expect((await write(service, 34, "34")).status).toBe(200);
  });
});

describe("turns", () => {
  it("are checked again when they come: whoever has become stale in the queue is refused", async () => {
    const gate = new Gate();
    const service = await start("node", { serialize: true }, gate.work);
    const first = write(service, 33, "slow 33");
    await gate.inside("slow 33");
    const second = write(service, 34, "34");
    await floorIs(service, "a", 34);
    const third = write(service, 35, "35");
    await floorIs(service, "a", 35); // while 34 waits
    gate.letGo("slow 33");
    expect((await first).status).toBe(200);
    expect((await second).status).toBe(409);
    expect((await third).status).toBe(200);
    expect(gate.left).toEqual(["slow 33", "35"]);
  });

  it("raising at the grant waits for what was let in before", async () => {
    const gate = new Gate();
    const service = await start("node", { serialize: true }, gate.work);
    const old = write(service, 33, "slow 33");
    await gate.inside("slow 33");
    const fence = httpFenceClient(service.url + ENDPOINT, { headers: credentials });
    let raised = false;
    const raising = fence.raise({ name: "a", token: 34 }).then(() => {
      raised = true;
    });
    await floorIs(service, "a", 34);
    expect(raised).toBe(false);
    gate.letGo("slow 33");
    await raising;
    expect(service.registers.get("a")).toBe("slow 33"); // what is read from now on is not overwritten
    expect((await old).status).toBe(200);
  });

  it("are taken together by those who hold together, and nobody overtakes", async () => {
    const gate = new Gate();
    const service = await start("node", { serialize: true }, gate.work);
    const inside = [write(service, 33, "slow 33 one"), write(service, 33, "slow 33 two")]; // one holder, two requests
    await gate.inside("slow 33 one");
    await gate.inside("slow 33 two");
    const readers = [write(service, 40, "slow 40", shared)];
    await until(() => service.requests === 3, "40 has arrived");
    readers.push(write(service, 39, "slow 39", shared));
    await until(() => service.requests === 4, "39 has arrived");
    const again = write(service, 33, "33 again"); // with the token of those inside, but readers wait
    await until(() => service.requests === 5, "33 has come again");
    await fetch(service.url + ENDPOINT); // a round trip later
    expect(gate.entered).toEqual(expect.arrayContaining(["slow 33 one", "slow 33 two"]));
    expect(gate.entered).toHaveLength(2);
    gate.letGo("slow 33 one");
    expect((await inside[0])?.status).toBe(200);
    expect(gate.entered).toHaveLength(2);
    gate.letGo("slow 33 two");
    await gate.inside("slow 40");
    await gate.inside("slow 39"); // readers together
    expect(gate.entered).not.toContain("33 again");
    gate.letGo("slow 40");
    gate.letGo("slow 39");
    expect((await again).status).toBe(200);
    for (const answer of [...inside, ...readers]) expect((await answer).status).toBe(200);
  });

  it("of different resources do not wait for each other", async () => {
    const gate = new Gate();
    const service = await start("node", { serialize: true }, gate.work);
    const old = write(service, 33, "slow 33");
    await gate.inside("slow 33");
    expect((await write(service, 34, "34", {}, "b")).status).toBe(200);
    gate.letGo("slow 33");
    await old;
  });

  it("have bounds: how many wait, and how long", async () => {
    const gate = new Gate();
    const service = await start("node", { serialize: true, waitingMax: 1 }, gate.work);
    const old = write(service, 33, "slow 33");
    await gate.inside("slow 33");
    const waiting = write(service, 34, "34");
    await floorIs(service, "a", 34);
    const refused = await write(service, 35, "35");
    expect(refused.status).toBe(503);
    expect(await refused.json()).toMatchObject({ code: "LIMIT" });
    gate.letGo("slow 33");
    await old;
    expect((await waiting).status).toBe(409); // 35 has raised the floor, though it was not let in
    expect((await write(service, 35, "35")).status).toBe(200);

    const brief = await start("node", { serialize: true, waitMs: 20 }, gate.work);
    const stuck = write(brief, 33, "slow stuck");
    await gate.inside("slow stuck");
    const late = await write(brief, 34, "34");
    expect(late.status).toBe(503);
    expect(await late.json()).toMatchObject({ code: "LIMIT" });
    expect(late.headers.get("retry-after")).toBe("1");
    gate.letGo("slow stuck");
    await stuck;
    expect((await write(brief, 34, "34")).status).toBe(200);
  });

  it("are not waited for by callers that have gone", async () => {
    const gate = new Gate();
    const service = await start("node", { serialize: true, waitingMax: 1 }, gate.work);
    const old = write(service, 33, "slow 33");
    await gate.inside("slow 33");
    const hangUp = new AbortController();
    const closed = closing(service, 34);
    const impatient = fetch(`${service.url}/registers/a`, {
      method: "PUT",
      headers: { ...credentials, "Fencing-Token": "34" },
      body: "impatient",
      signal: hangUp.signal,
    });
    await floorIs(service, "a", 34);
    hangUp.abort();
    await expect(impatient).rejects.toThrow();
    await closed;
    const arrived = once(service.server, "request");
    const next = write(service, 34, "34"); // there is room for one
    await arrived;
    await floorIs(service, "a", 34); // a round trip later
    gate.letGo("slow 33");
    await old;
    expect((await next).status).toBe(200);
    expect(gate.entered).toEqual(["slow 33", "34"]);
  });

  it("need handlers that say when they have ended", async () => {
    const errors: unknown[] = [];
    const service = await start("node", { serialize: true });
    const callbacks = service.fence.node((_req: IncomingMessage, res) => void setTimeout(() => res.end("late"), 1));
    service.server.removeAllListeners("request");
    service.server.on("request", (req, res) => {
      callbacks(req, res).catch((error: unknown) => {
        errors.push(error);
        res.writeHead(500).end();
      });
    });
    expect((await fetch(`${service.url}/registers/a`)).status).toBe(200); // it is not fenced, and takes no turn
    expect((await write(service, 33, "33")).status).toBe(500);
    expect(errors).toEqual([expect.objectContaining({ code: "INVALID" })]);
  });
});

/** Begins a request and stops in the middle of its body, as a process does that is stopped. */
async function beginUpload(service: Service, token: number): Promise<{ req: ClientRequest; ended: Promise<string> }> {
  const req = request(`${service.url}/registers/a`, {
    method: "PUT",
    headers: { ...credentials, "Fencing-Token": String(token), "Content-Length": "10" },
  });
  req.write("half ");
  const ended = new Promise<string>((resolve) => {
    req.on("error", (error: NodeJS.ErrnoException) => resolve(error.code ?? "error"));
    req.on("response", (res) => text(res).then(() => resolve(`answered ${res.statusCode}`)));
  });
  return { req, ended };
}

describe("a caller that is stopped in the middle of its request", () => {
  it("does not hold up its successor: the handler is told that it is stale", async () => {
    const service = await start("node", { serialize: true });
    const { fence, registers } = service;
    const stopped: unknown[] = [];
    let inside = 0;
    const listener = fence.node(async (req: IncomingMessage, res) => {
      inside += 1;
      const signal = fence.of(req)?.signal as AbortSignal;
      const giveUp = () => req.destroy(signal.reason);
      signal.addEventListener("abort", giveUp);
      const value = await text(req);
      registers.set("a", value);
      res.end("written");
    });
    service.server.removeAllListeners("request");
    service.server.on("request", (req, res) => {
      listener(req, res).catch((error: unknown) => stopped.push(error));
    });

    const old = await beginUpload(service, 33);
    await until(() => inside === 1, "33 is inside");
    expect((await write(service, 34, "34")).status).toBe(200);
    expect(stopped).toEqual([expect.objectContaining({ code: "STALE_TOKEN", token: 33, floor: 34 })]);
    old.req.end("late.");
    expect(await old.ended).not.toBe("answered 200");
    expect(registers.get("a")).toBe("34");
  });
});

describe("checking again in the handler", () => {
  it("refuses what has become stale meanwhile, without turns", async () => {
    const store = memoryStore();
    const service: Service = await start("node", { store }, async (_resource, value, req) => {
      if (value !== "33") return "";
      await store.raise("a", 34); // somebody else's grant, at the worst moment
      const admitted = service.fence.of(req);
      await expect(admitted?.check()).rejects.toMatchObject({ code: "STALE_TOKEN", token: 33, floor: 34 });
      return "rolled back";
    });
    const send = fencedFetch({ name: "a", token: 33 });
    const answer = await send(`${service.url}/registers/a`, { method: "PUT", headers: credentials, body: "33" });
    expect(await answer.text()).toBe("rolled back");
    expect(service.registers.size).toBe(0);
  });
});

async function floorIs(service: Service, name: string, floor: number): Promise<void> {
  const fence = httpFenceClient(service.url + ENDPOINT, { headers: credentials });
  const deadlineMs = performance.now() + 10_000;
  while ((await fence.inspect(name)).floor !== floor) {
    if (performance.now() > deadlineMs) throw new Error(`the floor of ${name} is not ${floor} within 10 s`);
  }
}

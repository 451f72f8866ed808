// @ts-check
/**
 * Free ports for servers that cannot be told "any port", or that must come back at the same one.
 *
 * A port that the system hands out (listen on 0) is from its ephemeral range, out of which every outgoing connection is
 * served too: a server that is killed and started again would now and then find its port taken by some client socket.
 * So ports are drawn from outside of that range, at random, since other test processes draw at the same time.
 */
import { readFileSync } from "node:fs";
import { createServer } from "node:net";

const FIRST = 10_000; // below are the well-known ones
const ROOM_MIN = 2_000; // with less room, two test processes would draw the same port too often
const DRAWS_MAX = 1_000;
const ATTEMPTS_MAX = 4;

/** The range of ports that the system uses for outgoing connections: Linux tells, others use IANA's. */
function ephemeralRange() {
  try {
    const [low, high] = readFileSync("/proc/sys/net/ipv4/ip_local_port_range", "utf8").trim().split(/\s+/).map(Number);
    if (low !== undefined && high !== undefined) return { low, high };
  } catch {
    // no Linux
  }
  return { low: 49_152, high: 65_535 };
}

/** @returns {{ first: number, last: number }} where to draw from */
function drawingRange() {
  const { low, high } = ephemeralRange();
  if (low - FIRST >= ROOM_MIN) return { first: FIRST, last: low - 1 };
  if (65_535 - high >= ROOM_MIN) return { first: high + 1, last: 65_535 };
  return { first: FIRST, last: 65_535 }; // the whole range is ephemeral: then a collision is improbable, not excluded
}

const range = drawingRange();
/** What this process has drawn: a server that was killed for a moment gets its own port back. At most the range. */
const drawn = new Set();

/**
 * @param {number} port
 * @returns {Promise<import("node:net").Server | undefined>} a listener on the port; undefined if it is taken
 */
function listen(port) {
  return new Promise((resolve) => {
    const server = createServer();
    server.once("error", () => resolve(undefined));
    server.listen(port, "127.0.0.1", () => resolve(server));
  });
}

/**
 * Ports of 127.0.0.1 on which nothing listens, all different, and none that this process was given before.
 *
 * @param {number} count
 * @returns {Promise<number[]>}
 * @throws {Error} when a thousand draws found too few
 */
export async function freePorts(count) {
  const ports = [];
  for (let draw = 0; draw < DRAWS_MAX && ports.length < count; draw++) {
    const port = range.first + Math.floor(Math.random() * (range.last - range.first + 1));
    if (drawn.has(port)) continue;
    const server = await listen(port);
    if (server === undefined) continue;
    await new Promise((resolve) => server.close(resolve));
    drawn.add(port);
    ports.push(port);
  }
  if (ports.length < count) throw new Error(`no ${count} free ports between ${range.first} and ${range.last}`);
  return ports;
}

/**
 * Between the look for a free port and its use someone else can take it. Runs `start` again with other ports then.
 *
 * @template T
 * @param {number} count
 * @param {(...ports: number[]) => Promise<T>} start
 * @returns {Promise<T>}
 */
export async function onFreePorts(count, start) {
  for (let attempt = 1; ; attempt++) {
    try {
      return await start(...(await freePorts(count)));
    } catch (error) {
      // These are other people's servers: their words are all they give.
      const taken = error instanceof Error && /address (is )?already in use|eaddrinuse/i.test(error.message);
      if (!taken || attempt === ATTEMPTS_MAX) throw error;
    }
  }
}

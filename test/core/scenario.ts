/**
 * Runs a scenario: text that drives the core, with the expected output behind each block.
 *
 *     # a comment
 *     call c1 acquire a own=1000
 *     ----
 *     c1: granted 1 at 1 to id1, 1000 of 1000 left
 *     = l/id1 h/1
 *
 * A block is one batch: its lines are stepped, then it is sealed and made durable. The output has the replies of each
 * line, `early` before those that need not wait for the batch, and behind `=` the keys that the batch writes (`-key`: deletes). Commands:
 *
 *     limits KEY=N ...                        changes limits; takes effect with the next start
 *     call ROUTE REQUEST                      a unary call; see `scenario-language.ts`
 *     gone ROUTE [token=N]                    that call broke
 *     attach SESSION STREAM epoch=N [new] [claims=N,N] [outstanding=N,N] [cluster=ID] [highest=N]
 *     frame SESSION epoch=N [no=N] [acked=N] [also=N,N] [renew] [progress=N,N] [observed=N] : SEQ REQUEST ; SEQ REQUEST
 *     detach SESSION epoch=N
 *                                             calls, attach and frames: by=PRINCIPAL quota=LEASES,LOCKS,WAITERS
 *     advance MS                              time passes
 *     expire [asof=-MS] [once]                works off what is due, or was due a while ago
 *     crash                                   what is not durable, this block, is gone; the core is recovered
 *     fail lost|kept                          as after a failed append, in the same process
 *     restore advance=N [quiet=MS]            what is durable becomes a backup, and a store that is restored from it goes on
 *     tick                                    records the time that has been served
 *     events                                  prints events from here on, those of a start too
 */
import { Core, emptyEffects } from "../../src/server/core/core.js";
import type { Floors } from "../../src/server/core/recover.js";
import { Restoration } from "../../src/server/core/restore.js";
import type { Command, CoreLimits, Effects, Refusal, Reply, Request, Route } from "../../src/server/core/types.js";
import { CLUSTER_ID, testLimits } from "./limits.js";
import { type Line, numberOf, numbersOf, parseLine, parseRequest, principalOf } from "./scenario-language.js";
import { printEvent, printReply } from "./scenario-output.js";

interface NamedRoute extends Route {
  readonly name: string;
}

/** Runs all blocks; returns the text with the output that there really was. */
export function runScenario(text: string): string {
  const scenario = new Scenario();
  const result: string[] = [];
  for (const block of text.trimEnd().split(/\n\n+/)) {
    const lines = block.split("\n");
    const divider = lines.indexOf("----");
    if (divider < 0) {
      result.push(block); // only comments
      continue;
    }
    const input = lines.slice(0, divider);
    const output = scenario.runBlock(input.filter((line) => !line.startsWith("#")));
    result.push([...input, "----", ...output].join("\n"));
  }
  return `${result.join("\n\n")}\n`;
}

class Scenario {
  #limits: CoreLimits = testLimits;
  readonly #journal = new Map<string, string>();
  readonly #routes = new Map<string, NamedRoute>();
  #nowMs = 0;
  #ids = 0;
  #frames = 0;
  #events = false;
  #fx: Effects = emptyEffects();
  #durableBatch = 1;
  #core: Core;
  #out: string[] = [];

  constructor() {
    this.#core = this.#recover(undefined);
  }

  runBlock(lines: readonly string[]): string[] {
    this.#out = [];
    for (const text of lines) this.#run(text);
    this.#seal(false);
    return this.#out;
  }

  #run(text: string): void {
    const colon = text.indexOf(" : ");
    const line = parseLine(colon < 0 ? text : text.slice(0, colon));
    const [verb = "", first = "", second = ""] = line.words;
    switch (verb) {
      case "limits":
        for (const [key, value] of line.options) this.#limits = { ...this.#limits, [key]: Number(value) };
        break;
      case "call":
        this.#call(first, { ...line, words: line.words.slice(2) });
        break;
      case "gone":
        this.#step({
          kind: "callGone",
          route: this.#route(first, "call"),
          token: line.options.has("token") ? numberOf(line, "token", 0) : null,
        });
        break;
      case "attach":
        this.#attach(first, second, line);
        break;
      case "frame":
        this.#frame(first, line, colon < 0 ? "" : text.slice(colon + 3));
        break;
      case "detach":
        this.#step({ kind: "detach", sessionId: first, epoch: numberOf(line, "epoch", 1) });
        break;
      case "advance":
        this.#nowMs += Number(first);
        break;
      case "expire":
        this.#expire(line);
        break;
      case "crash":
        this.#fx = emptyEffects();
        this.#core = this.#recover(undefined);
        break;
      case "fail":
        this.#fail(first === "kept");
        break;
      case "restore":
        this.#restore(numberOf(line, "advance", 1), numberOf(line, "quiet", 0));
        break;
      case "tick":
        this.#seal(true);
        break;
      case "events":
        this.#events = true;
        break;
      default:
        throw new Error(`no such command: ${text}`);
    }
  }

  #route(name: string, kind: "call" | "stream"): NamedRoute {
    let route = this.#routes.get(name);
    if (route === undefined) {
      route = { kind, name };
      this.#routes.set(name, route);
    }
    return route;
  }

  #request(line: Line, onSession: boolean): Request | Refusal {
    if (line.words[0] === "bad") return { kind: "refused", reason: "INVALID", message: "bad" };
    return parseRequest(line, onSession, { id: () => `id${++this.#ids}`, wallMs: this.#nowMs });
  }

  #call(name: string, line: Line): void {
    const request = this.#request(line, false);
    if (request.kind === "refused") throw new Error("a call is not refused here");
    // A route is one call: the next one of that name is another.
    this.#routes.delete(name);
    const observed = request.kind === "tick" ? 0 : numberOf(line, "observed", 0);
    this.#step({ kind: "call", request, route: this.#route(name, "call"), principal: principalOf(line), observed });
  }

  #attach(session: string, stream: string, line: Line): void {
    const isNew = line.words.includes("new");
    this.#step({
      kind: "attach",
      sessionId: isNew ? "" : session,
      newSessionId: session,
      epoch: numberOf(line, "epoch", 1),
      claims: numbersOf(line, "claims"),
      outstanding: numbersOf(line, "outstanding"),
      abandoned: numbersOf(line, "abandoned"),
      clusterId: line.options.get("cluster") ?? (line.options.has("highest") ? CLUSTER_ID : ""),
      highestToken: numberOf(line, "highest", 0),
      route: this.#route(stream, "stream"),
      principal: principalOf(line),
      observed: numberOf(line, "observed", 0),
    });
  }

  #frame(sessionId: string, line: Line, text: string): void {
    const requests = text
      .split(";")
      .filter((part) => part.trim() !== "")
      .map((part) => {
        const { words, options } = parseLine(part);
        const [seq = "", ...rest] = words;
        return { seq: Number(seq), request: this.#request({ words: rest, options }, true) };
      });
    this.#step({
      kind: "frame",
      sessionId,
      epoch: numberOf(line, "epoch", 1),
      frame: numberOf(line, "no", ++this.#frames),
      ackedBelow: numberOf(line, "acked", 0),
      acked: numbersOf(line, "also"),
      renew: line.words.includes("renew"),
      progress: numbersOf(line, "progress"),
      principal: principalOf(line),
      observed: numberOf(line, "observed", 0),
      requests,
    });
  }

  #step(command: Command, nowMs = this.#nowMs): void {
    const { replies, events } = this.#fx;
    const [repliesBefore, eventsBefore] = [replies.length, events.length];
    const dependsOn = this.#core.step(command, nowMs, this.#fx);
    const early = dependsOn <= this.#durableBatch ? "early " : "";
    for (const reply of replies.slice(repliesBefore)) this.#out.push(early + printReply(reply, nameOf));
    if (this.#events) for (const event of events.slice(eventsBefore)) this.#out.push(printEvent(event));
  }

  #expire(line: Line): void {
    const asOfMs = this.#nowMs + numberOf(line, "asof", 0);
    if (line.words.includes("once")) {
      this.#step({ kind: "expire" }, asOfMs);
      return;
    }
    for (let round = 0; (this.#core.nextDueMs ?? Number.POSITIVE_INFINITY) <= asOfMs; round++) {
      if (round > 10_000) throw new Error("expiry does not come to an end");
      this.#step({ kind: "expire" }, asOfMs);
    }
  }

  #seal(force: boolean): void {
    const batch = this.#core.batch;
    if (this.#core.seal(this.#nowMs, this.#fx, force)) {
      this.#durableBatch = batch;
      this.#persist(this.#fx.mutations, true);
    }
    this.#fx = emptyEffects();
  }

  #fail(kept: boolean): void {
    const { floors } = this.#core;
    if (kept) {
      this.#core.seal(this.#nowMs, this.#fx, true);
      this.#persist(this.#fx.mutations, true);
    }
    this.#fx = emptyEffects();
    this.#core = this.#recover(floors);
  }

  #restore(advanceTokens: number, quietMs: number): void {
    const restoration = new Restoration();
    for (const [key, value] of this.#journal) restoration.read(key, value);
    this.#journal.clear();
    for (const [key, value] of restoration.entries({ advanceTokens, quietMs })) this.#journal.set(key, value);
    this.#out.push(`restored ${[...this.#journal.keys()].sort().join(" ")}`);
    this.#fx = emptyEffects();
    this.#core = this.#recover(undefined);
  }

  #recover(floors: Floors | undefined): Core {
    const init = { limits: this.#limits, clusterId: CLUSTER_ID, nowMs: this.#nowMs };
    const fx = emptyEffects();
    const core = Core.recover(new Map(this.#journal), floors === undefined ? init : { ...init, floors }, fx);
    this.#persist(fx.mutations, false);
    if (this.#events) for (const event of fx.events) this.#out.push(printEvent(event));
    this.#durableBatch = 1;
    return core;
  }

  #persist(mutations: readonly (string | null)[], print: boolean): void {
    const keys: string[] = [];
    for (let i = 0; i < mutations.length; i += 2) {
      const key = mutations[i] as string;
      const value = mutations[i + 1] as string | null;
      if (value === null) this.#journal.delete(key);
      else this.#journal.set(key, value);
      if (key !== "!") keys.push(value === null ? `-${key}` : key);
    }
    if (print && keys.length > 0) this.#out.push(`= ${keys.join(" ")}`);
  }
}

const nameOf = (reply: Reply): string => (reply.route as NamedRoute).name;

/** Events of a watch as lines for people and as objects for programs. */
import type { Holder, Waiter, WatchEvent, WatchReset, WatchState } from "@leasehold/client";
import { metadataForJson, ownerText } from "./lock-views.js";
import { plain } from "./output.js";

/** The longest kind. */
const KIND_WIDTH = "transferred".length;
/** As wide as positions are for a long time. */
const POSITION_WIDTH = 8;

const two = (n: number): string => String(n).padStart(2, "0");

/** "14:03:59.012": the local time of day. */
function timeOfDay(date: Date): string {
  const time = [date.getHours(), date.getMinutes(), date.getSeconds()].map(two).join(":");
  return `${time}.${String(date.getMilliseconds()).padStart(3, "0")}`;
}

/** One line: when it arrived, the position, what happened, to which lock, token, owner. */
export function eventText(event: WatchEvent, arrivedAt: Date): string {
  const position = event.position === 0 ? "-" : String(event.position);
  const kind = event.type.replace("_", " ").padEnd(KIND_WIDTH);
  const cells = [timeOfDay(arrivedAt), position.padStart(POSITION_WIDTH), kind, ...wordsOf(event)];
  return `${cells.join("  ").trimEnd()}\n`;
}

function wordsOf(event: WatchEvent): string[] {
  switch (event.type) {
    case "reset":
      return [RESET_TEXT[event.reason]];
    case "synced":
      return ["that was the state; now what happens"];
    case "state":
      return [plain(event.name), ...stateWords(event)];
    case "queued":
    case "dequeued":
      return [plain(event.name), `ticket ${plain(event.waiter.ticketId)}`, ownerText(event.waiter.owner)];
    case "granted":
    case "downgraded":
    case "updated":
      return [plain(event.name), ...holderWords(event.holder)];
    case "transferred":
      return [plain(event.name), ...holderWords(event.holder), `from token ${event.previousToken}`];
    case "revoking":
      return [plain(event.name), ...holderWords(event.holder), ...messageWords(event.message)];
    default:
      return [plain(event.name), `token ${event.token}`, ...messageWords(event.message)];
  }
}

const RESET_TEXT: Readonly<Record<WatchReset["reason"], string>> = {
  start: "the state follows",
  lagged: "events were missed, they were not read fast enough; the state follows",
  forgotten: "events were missed, the server does not remember them; the state follows",
};

const holderWords = ({ token, owner }: Holder): string[] => [`token ${token}`, ownerText(owner)];

const messageWords = (message: string): string[] => (message === "" ? [] : [`reason: ${plain(message)}`]);

function stateWords({ holders, holdersTotal, waitersTotal }: WatchState): string[] {
  const [first] = holders;
  const others = holdersTotal - 1;
  const held = first ? [...holderWords(first), ...(others > 0 ? [`and ${others} more`] : [])] : ["free"];
  return waitersTotal > 0 ? [...held, `${waitersTotal} waiting`] : held;
}

export function eventForJson(event: WatchEvent) {
  return {
    ...event,
    ...("holder" in event ? { holder: readable(event.holder) } : {}),
    ...("waiter" in event ? { waiter: readable(event.waiter) } : {}),
    ...(event.type === "state" ? { holders: event.holders.map(readable), waiters: event.waiters.map(readable) } : {}),
  };
}

const readable = <T extends Holder | Waiter>(who: T) => ({ ...who, ...metadataForJson(who.metadata) });

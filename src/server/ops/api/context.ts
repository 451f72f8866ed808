/** What the routes of the API are made of. */
import type { IncomingMessage, ServerResponse } from "node:http";
import type { CoreLimits } from "../../core/types.js";
import type { HotLock } from "../../rpc/encode-views.js";
import type { RpcLimits } from "../../rpc/limits.js";
import type { SessionView } from "../../rpc/session.js";
import type { ServerStatus } from "../../rpc/status.js";
import type { Access, Identity, Peer } from "../../security/access.js";
import type { CommandSink } from "../../sequencer/routes.js";
import type { WatchHub } from "../../watch/hub.js";
import type { Answer } from "../answer.js";
import type { WallTimes } from "../wall-times.js";
import type { EventStreams } from "./events.js";

/** A lock that somebody has taken away by the console, or has tried to: for the audit log. */
export interface ForcedRelease {
  readonly principal: string;
  readonly address: string;
  readonly requestId: string;
  readonly name: string;
  /** 0: all holders. */
  readonly token: number;
  readonly reason: string;
  readonly now: boolean;
  /** "OK", or why it came to nothing. */
  readonly result: string;
  /** Tokens whose holds ended, or are ending. */
  readonly tokens: readonly number[];
}

/** What the composition root gives the console. */
export interface ConsoleOptions {
  readonly sink: CommandSink;
  readonly watch: WatchHub;
  readonly coreLimits: CoreLimits;
  readonly limits: RpcLimits;
  readonly wallTimes: WallTimes;
  serverStatus(): ServerStatus;
  /** The locks with the most grants of late, the hottest first. */
  hottest(limit: number): readonly HotLock[];
  /** The clients that are connected, those that came last first. */
  sessions(limit: number): readonly SessionView[];
  audit?(act: ForcedRelease): void;
}

export interface ApiContext extends ConsoleOptions {
  readonly access: Access;
  readonly streams: EventStreams;
}

/** One request, of somebody who is known. */
export interface ApiRequest {
  readonly http: IncomingMessage;
  readonly response: ServerResponse;
  readonly peer: Peer;
  readonly identity: Identity;
  /** The lock in the path; "": there is none. */
  readonly name: string;
  readonly query: URLSearchParams;
}

/** Null: the route has taken the response over. */
export type ApiRoute = (context: ApiContext, request: ApiRequest) => Answer | null | Promise<Answer | null>;

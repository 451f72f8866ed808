/** How unary calls and session streams travel in the simulation. */
import {
  type Attach,
  anybody,
  type Frame,
  type Outcome,
  type Principal,
  type Reply,
  type Request,
  type Route,
} from "../../../src/server/core/types.js";

/** One arrival of a unary request at the server. A message that the network doubles makes two of them. */
export class SimCall implements Route {
  readonly kind = "call";
  /** What becomes of the reply: it arrives, it is lost, or the server notices that the call is gone. */
  fate: "arrives" | "lost" | "gone" = "arrives";
  answered = false;

  constructor(
    readonly request: Request,
    readonly sentMs: number,
    readonly onOutcome: (outcome: Outcome, sentMs: number) => void,
    readonly principal: Principal = anybody,
  ) {}
}

export type Hello = Omit<Attach, "kind" | "route" | "newSessionId">;
export type FrameMessage = Omit<Frame, "kind" | "sessionId" | "epoch">;

/** One stream of a session, both ends of it and what is under way between them. */
export class SimStream implements Route {
  readonly kind = "stream";
  readonly toServer: (Hello | FrameMessage)[] = [];
  readonly toClient: Reply[] = [];
  /** When the client sent each frame. */
  readonly sentMs = new Map<number, number>();
  frames = 0;
  /** Set at each end when it has said, or heard, the welcome. */
  serverSession = "";
  clientSession = "";
  clientOpen = true;
  serverOpen = true;

  constructor(readonly epoch: number) {}
}

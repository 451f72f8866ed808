/** The sessions of all carriers: how many may be open, and to whom they belong. */
import type { RouteFailure } from "../sequencer/routes.js";
import type { WireFailure } from "./errors.js";
import { local, type SessionContext, SessionStream, type SessionView, type StreamOwner } from "./session.js";
import type { SessionInput, SessionPipe } from "./session-pipe.js";
import { Shares } from "./shares.js";

export class SessionEndpoint {
  private readonly streams = new Set<SessionStream>();
  private readonly shares: Shares;

  constructor(private readonly context: SessionContext) {
    this.shares = new Shares("session streams", context.limits.streamsPerPrincipalMax);
  }

  /** Open streams. */
  get size(): number {
    return this.streams.size;
  }

  /** The clients that are connected, those that came last first; at most so many. */
  list(limit: number): SessionView[] {
    const views: SessionView[] = [];
    for (const stream of [...this.streams].reverse()) {
      if (views.length >= limit) break;
      const { view } = stream;
      if (view !== null) views.push(view);
    }
    return views;
  }

  /** `refusal`: why this stream is not taken, else null. `owner`: absent for a client of this process. */
  open(pipe: SessionPipe, refusal: WireFailure | null = null, owner: StreamOwner = local): SessionInput {
    const share = refusal ?? this.full() ?? this.shares.take(owner.identity.principal.name);
    const taken = "reason" in share ? undefined : share;
    const stream = new SessionStream(this.context, pipe, owner, (gone) => {
      this.streams.delete(gone);
      taken?.();
    });
    if ("reason" in share) stream.end(share);
    else {
      this.streams.add(stream);
      stream.begin();
    }
    return stream;
  }

  private full(): RouteFailure | null {
    const { streamsMax } = this.context.limits;
    if (this.streams.size < streamsMax) return null;
    return { reason: "LIMIT", message: `more than ${streamsMax} streams are open`, retryAfterMs: 1_000 };
  }

  /** Ends all streams. */
  closeAll(failure: RouteFailure): void {
    for (const stream of [...this.streams]) stream.end(failure);
  }
}

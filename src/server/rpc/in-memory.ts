/**
 * Sessions and watches without sockets: what the client SDK calls a `Transport`, connected to a server in the same
 * process. Frames pass through the codec as bytes and arrive later, as they would from a network; nothing else differs.
 *
 * The shapes are the client's; they are stated here once more because its seam is no public interface.
 */
import type { StatusDetails } from "@leasehold/client/wire";
import { statusDetails, type WireFailure } from "./errors.js";
import type { SessionEndpoint } from "./session-endpoint.js";
import type { SessionPipe } from "./session-pipe.js";
import type { WatchEndpoint } from "./watch.js";

interface StreamHandlers {
  onFrame(bytes: Uint8Array): void;
  onDrain(): void;
  onEnd(status: StatusDetails): void;
}

interface Stream {
  send(bytes: Buffer): boolean;
  end(): void;
  destroy(): void;
}

interface WatchHandlers {
  onFrame(bytes: Uint8Array): void;
  onEnd(status: StatusDetails): void;
}

interface WatchStream {
  pause(): void;
  resume(): void;
  destroy(): void;
}

export interface InMemoryTransport {
  readonly addresses: readonly { readonly text: string; readonly local: boolean }[];
  open(index: number, handlers: StreamHandlers): Stream;
  openWatch(index: number, request: Uint8Array, handlers: WatchHandlers): WatchStream;
}

/** A transport to a server of this process. */
export function inMemoryTransport(server: {
  readonly sessions: SessionEndpoint;
  readonly watches: WatchEndpoint;
}): InMemoryTransport {
  return {
    addresses: [{ text: "in-memory", local: true }],
    open: (_index, handlers) => openStream(server.sessions, handlers),
    openWatch: (_index, request, handlers) => openWatch(server.watches, request, handlers),
  };
}

function openStream(sessions: SessionEndpoint, handlers: StreamHandlers): Stream {
  let buffered = 0;
  let ended = false;
  const end = (status: StatusDetails) => {
    queueMicrotask(() => {
      if (!ended) handlers.onEnd(status);
      ended = true;
    });
  };
  const pipe: SessionPipe = {
    write(bytes) {
      buffered += bytes.length;
      queueMicrotask(() => {
        buffered -= bytes.length;
        if (!ended) handlers.onFrame(bytes);
      });
    },
    bufferedBytes: () => buffered,
    close: (failure: WireFailure | null) =>
      end(failure ? statusDetails(failure) : { code: 0, message: "", reason: "" }),
    reset: (failure) => end(statusDetails(failure)),
  };
  const input = sessions.open(pipe);
  return {
    send(bytes) {
      queueMicrotask(() => input.receive(bytes));
      return true;
    },
    end: () => queueMicrotask(() => input.ended()),
    destroy() {
      ended = true;
      queueMicrotask(() => input.ended());
    },
  };
}

function openWatch(watches: WatchEndpoint, request: Uint8Array, handlers: WatchHandlers): WatchStream {
  let paused = false;
  let full = false;
  let over = false;
  const input = watches.open(request, {
    write(bytes) {
      queueMicrotask(() => {
        if (!over) handlers.onFrame(bytes);
      });
      full = paused;
      return !full;
    },
    end: (failure) =>
      queueMicrotask(() => {
        if (!over) handlers.onEnd(statusDetails(failure));
        over = true;
      }),
  });
  return {
    pause() {
      paused = true;
    },
    resume() {
      paused = false;
      if (!full) return;
      full = false;
      input.drained();
    },
    destroy() {
      over = true;
      input.close();
    },
  };
}

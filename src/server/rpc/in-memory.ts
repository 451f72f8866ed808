/**
 * Sessions without sockets: what the client SDK calls a `Transport`, connected to a server in the same process. Frames
 * pass through the codec as bytes and arrive later, as they would from a network; nothing else differs.
 *
 * The shapes are the client's; they are stated here once more because its seam is no public interface.
 */
import type { StatusDetails } from "@leasehold/client/wire";
import { statusDetails, type WireFailure } from "./errors.js";
import type { SessionEndpoint, SessionPipe } from "./session.js";

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

export interface InMemoryTransport {
  readonly addresses: readonly { readonly text: string; readonly local: boolean }[];
  open(index: number, handlers: StreamHandlers): Stream;
}

export function inMemoryTransport(sessions: SessionEndpoint): InMemoryTransport {
  return {
    addresses: [{ text: "in-memory", local: true }],
    open: (_index, handlers) => openStream(sessions, handlers),
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

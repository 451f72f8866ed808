/** The phases of the sequencer's life, and what clients are told outside of the one in which it serves. */
import type { RouteFailure } from "./routes.js";

export type Phase = "starting" | "serving" | "down" | "draining" | "closed";

export const unavailable: Record<Exclude<Phase, "serving">, RouteFailure> = {
  starting: { reason: "STORE_DOWN", message: "the server is starting", retryAfterMs: 250 },
  down: { reason: "STORE_DOWN", message: "the store has failed and is being opened again", retryAfterMs: 1000 },
  draining: { reason: "CLOSED", message: "the server is stopping", retryAfterMs: 1000 },
  closed: { reason: "CLOSED", message: "the server has stopped", retryAfterMs: 1000 },
};

import { randomBytes } from "node:crypto";

/** What a request gets from outside, because the core must not draw it: random ids and the wall clock. */
export interface Sources {
  /** A fresh secret of at least 128 random bits. */
  freshId(): string;
  /** Milliseconds since 1970, for display only. */
  wallMs(): number;
}

export const systemSources: Sources = {
  freshId: () => randomBytes(16).toString("base64url"),
  wallMs: () => Date.now(),
};

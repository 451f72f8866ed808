/** One question to the core, like any other call: it goes through the sequencer, and is answered when that is durable. */
import type { Outcome, Request } from "../../core/types.js";
import { forbidden } from "../../rpc/callers.js";
import { failureOf, type WireFailure } from "../../rpc/errors.js";
import type { Identity } from "../../security/access.js";
import { withhold } from "../../security/withhold.js";
import type { CommandSink, LiveRoute } from "../../sequencer/routes.js";

export type Asked = { readonly outcome: Outcome; readonly timestamp: number } | { readonly failure: WireFailure };

/** What the caller may not ask for is not asked. A refusal of the core is a failure. */
export function ask(sink: CommandSink, identity: Identity, request: Request): Promise<Asked> {
  const refusal = forbidden(identity, request);
  if (refusal !== null) return Promise.resolve({ failure: failureOf(refusal) });
  return new Promise((resolve) => {
    const route: LiveRoute = {
      kind: "call",
      deliver: (reply, timestamp) => {
        if (reply.kind !== "outcome") return;
        const outcome = withhold(reply.outcome, identity);
        resolve(outcome.kind === "refused" ? { failure: failureOf(outcome) } : { outcome, timestamp });
      },
      flush: () => undefined,
      fail: (failure) => resolve({ failure }),
    };
    const { principal } = identity;
    const failure = sink.submit({ kind: "call", request, route, principal, observed: 0 });
    if (failure !== null) resolve({ failure });
  });
}

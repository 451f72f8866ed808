// @ts-check
/**
 * What an operator loads with NODE_OPTIONS=--import to have a server traced, except that it writes the spans as lines of
 * JSON into the file that SPANS_FILE names.
 */
import { appendFileSync } from "node:fs";
import { trace } from "@opentelemetry/api";
import { BasicTracerProvider, SimpleSpanProcessor } from "@opentelemetry/sdk-trace-base";

const file = process.env.SPANS_FILE ?? "";

trace.setGlobalTracerProvider(
  new BasicTracerProvider({
    spanProcessors: [
      new SimpleSpanProcessor({
        export(spans, done) {
          for (const span of spans) {
            const { traceId, spanId } = span.spanContext();
            const line = {
              name: span.name,
              traceId,
              spanId,
              parent: span.parentSpanContext?.spanId,
              ...span.attributes,
            };
            appendFileSync(file, `${JSON.stringify(line)}\n`);
          }
          done({ code: 0 });
        },
        shutdown: async () => {},
      }),
    ],
  }),
);

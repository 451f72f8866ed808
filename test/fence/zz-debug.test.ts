import { Consumer, Producer } from "@platformatic/kafka";
import { test } from "vitest";
import { startBroker } from "./kafka-broker.js";
test("x", async () => {
  const broker = await startBroker();
  const p = new Producer({ clientId: "t", bootstrapBrokers: broker.brokers, retries: 0 } as never);
  console.log(await p.metadata({ topics: ["a"] }).catch((e) => e));
  console.log(await p.send({ messages: [{ topic: "a", partition: 0, key: Buffer.from("k"), value: Buffer.from("v"), headers: new Map([[Buffer.from("h"), Buffer.from("x")]]) }], acks: -1 }).catch((e) => e));
  const c = new Consumer({ groupId: "g", clientId: "c", bootstrapBrokers: broker.brokers, maxWaitTime: 20 } as never);
  c.on("consumer:group:join", () => console.log("join"));
  const s = await c.consume({ topics: ["a"], autocommit: false, mode: "committed", fallbackMode: "earliest" }).catch((e) => e);
  console.log("stream", s instanceof Error ? s : "ok");
  for await (const m of s) { console.log(m.offset, String(m.value), m.headers); break; }
}, 15000);

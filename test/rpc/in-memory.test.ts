import { decode, encode, type leasehold, type StatusDetails, v1 } from "@leasehold/client/wire";
import { expect, it } from "vitest";
import type { Transport } from "../../src/client/transport.js";
import { inMemoryTransport } from "../../src/server/rpc/in-memory.js";
import { startServer, until } from "./support.js";

it("carries a session between a client and a server of the same process, later and in order", async () => {
  const t = await startServer();
  const transport: Transport = inMemoryTransport(t.server); // the client's own seam
  const frames: leasehold.v1.AttachResponse[] = [];
  const ends: StatusDetails[] = [];
  const handlers = {
    onFrame: (bytes: Uint8Array) => frames.push(decode(v1.AttachResponse, bytes)),
    onDrain: () => {},
    onEnd: (status: StatusDetails) => ends.push(status),
  };
  const stream = transport.open(0, handlers);
  stream.send(encode(v1.AttachRequest, { frame: 1, hello: { epoch: 1 } }));
  stream.send(encode(v1.AttachRequest, { frame: 2, commands: [{ seq: 1, release: { name: "n", token: 1 } }] }));
  expect(t.sink.commands).toEqual([]);
  await until("the result", () => frames.length === 2);
  expect(frames[0]?.welcome).not.toBeNull();
  expect(frames[1]?.results).toMatchObject([{ seq: 1, release: {} }]);

  stream.send(encode(v1.AttachRequest, { frame: 9 }));
  await until("the end", () => ends.length > 0);
  expect(ends).toMatchObject([{ code: 3, reason: "INVALID" }]);

  const second = transport.open(0, handlers);
  second.send(encode(v1.AttachRequest, { frame: 1, hello: { epoch: 1 } }));
  await until("the welcome", () => frames.length === 3);
  second.end();
  await until("the second end", () => ends.length === 2);
  expect(ends[1]).toMatchObject({ code: 0 });

  const third = transport.open(0, handlers);
  third.send(encode(v1.AttachRequest, { frame: 1, hello: { epoch: 1 } }));
  await until("a third attach", () => t.sink.all("attach").length === 3);
  third.destroy();
  await until("its detach", () => t.sink.all("detach").length === 3);
  expect(ends.length).toBe(2);
  await t.stop();
});

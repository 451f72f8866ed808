// What a running server tells of requests, and how its log is made to tell more.
import { Client, credentials, Metadata, type ServiceError } from "@grpc/grpc-js";
import { connect } from "@leasehold/client";
import { encode, v1 } from "@leasehold/client/wire";
import { expect, onTestFinished, test } from "vitest";
import { leasehold } from "../cli/support.js";
import { ServerProcess, until } from "./support.js";

const raw = (bytes: Buffer) => bytes;

interface Line {
  readonly level: string;
  readonly msg: string;
  readonly requestId?: string;
  readonly rpc?: string;
  readonly reason?: string;
  readonly durationMs?: number;
}

const lines = (server: ServerProcess): Line[] =>
  server.log
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => JSON.parse(line) as Line);

/** Calls DescribeLock with this request id; resolves with the id that an error names. */
function describeLock(server: ServerProcess, name: string, requestId: string): Promise<string> {
  const client = new Client(server.address, credentials.createInsecure(), { "grpc.enable_http_proxy": 0 });
  onTestFinished(() => client.close());
  const headers = new Metadata();
  headers.set("x-request-id", requestId);
  const request = encode(v1.DescribeLockRequest, { name });
  return new Promise((resolve) => {
    client.makeUnaryRequest(
      "/leasehold.v1.LockService/DescribeLock",
      raw,
      raw,
      request,
      headers,
      (error: ServiceError | null) => resolve(String(error?.metadata.get("x-request-id")[0] ?? "")),
    );
  });
}

test("at debug the log tells of every request by its id, and only then", async () => {
  const server = await ServerProcess.start("memory:");
  await describeLock(server, "a", "before");

  const set = await leasehold(["log-level", "debug", "--addr", server.address]);
  expect(set).toEqual({ code: 0, stdout: "info -> debug\n", stderr: "" });
  expect(await describeLock(server, "a", "during-1")).toBe("");
  expect(await describeLock(server, "", "during-2")).toBe("during-2");
  const own = await describeLock(server, "", "{not to be taken as it is}");
  expect(own).toMatch(/^[\w-]+-\w+$/);
  const client = await connect(server.address);
  await (await client.acquire("a")).release();
  await client.close();
  const told = (what: (line: Line) => boolean) => until(() => lines(server).some(what), 20_000, server.log);
  await told((line) => line.requestId === "during-1" && line.reason === "OK" && (line.durationMs ?? -1) >= 0);
  await told((line) => line.requestId === "during-2" && line.reason === "INVALID");
  await told((line) => line.requestId === own);
  await told((line) => line.rpc === "/leasehold.v1.SessionService/Attach" && line.reason === "OK");

  const back = await leasehold(["log-level", "info", "--json", "--addr", server.address]);
  expect(JSON.parse(back.stdout)).toEqual({ level: "info", previousLevel: "debug" });
  await told((line) => line.msg === "the level of the log is changed" && line.level === "warn");
  await describeLock(server, "a", "after");
  const ids = lines(server).map(({ requestId }) => requestId);
  expect(ids).not.toContain("before");
  expect(ids).not.toContain("after");
});

test("a level that does not exist is refused, by the command and by the server", async () => {
  const server = await ServerProcess.start("memory:");
  expect(await leasehold(["log-level", "loud", "--addr", server.address])).toMatchObject({ code: 64 });
  const client = new Client(server.address, credentials.createInsecure(), { "grpc.enable_http_proxy": 0 });
  onTestFinished(() => client.close());
  const error = await new Promise<ServiceError | null>((resolve) => {
    const request = encode(v1.SetLogLevelRequest, { level: "loud" });
    client.makeUnaryRequest("/leasehold.v1.AdminService/SetLogLevel", raw, raw, request, (e) => resolve(e));
  });
  expect(error?.metadata.get("leasehold-reason")).toEqual(["INVALID"]);
});

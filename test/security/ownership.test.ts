// What belongs to one principal is of no use to another, over the wire. The rules themselves are the core's and tested there.
import { decode, encode, type leasehold, type MessageType, v1 } from "@leasehold/client/wire";
import { describe, expect, it, onTestFinished } from "vitest";
import { type GrpcFailure, TestClient } from "../rpc/support.js";
import { file, secret, serve, tokenLine } from "./support.js";

const tokens = { alice: secret("lh_alice_7Qm2"), bob: secret("lh_bob_x0Zr9") };

type Who = keyof typeof tokens;

async function start() {
  const authTokens = file(tokenLine("alice", tokens.alice) + tokenLine("bob", tokens.bob));
  const server = await serve({ authTokens });
  const client = (who: Who) => {
    const made = new TestClient(server.address);
    made.header("authorization", `Bearer ${tokens[who]}`);
    onTestFinished(() => made.close());
    return made;
  };
  const alice = client("alice");
  return { server, alice, bob: client("bob") };
}

async function held(alice: TestClient, more: leasehold.v1.AcquireRequest.$Properties = {}) {
  const { grant } = await alice.acquire({ name: "a", mode: 1, ttlMs: 60_000, ...more });
  expect(grant?.leaseId).toMatch(/^[\w-]{22,}$/); // 128 random bits at least: nobody guesses it
  return { token: grant?.token ?? 0, leaseId: grant?.leaseId ?? "" };
}

/** "OK", or the reason of the refusal. */
function asks<M>(client: TestClient, path: string, type: MessageType<M, unknown>, request: M): Promise<string> {
  return client.call(path, encode(type, request)).then(
    () => "OK",
    (failure: GrpcFailure) => {
      // Neither whose it is nor any id is told.
      expect(failure.message).not.toMatch(/alice|lh_/);
      return failure.reasonTrailer ?? "";
    },
  );
}

const uses = (client: TestClient, { token, leaseId }: { token: number; leaseId: string }) => ({
  renew: () => asks(client, "LeaseService/RenewLease", v1.RenewLeaseRequest, { leaseId }),
  get: () => asks(client, "LeaseService/GetLease", v1.GetLeaseRequest, { leaseId }),
  use: () => asks(client, "LockService/Acquire", v1.AcquireRequest, { name: "b", mode: 1, leaseId }),
  metadata: () => asks(client, "LockService/SetMetadata", v1.SetMetadataRequest, { name: "a", token }),
  downgrade: () => asks(client, "LockService/Downgrade", v1.DowngradeRequest, { name: "a", token }),
  transfer: () => asks(client, "LockService/Transfer", v1.TransferRequest, { name: "a", token, ticketId: "T999" }),
  release: () => asks(client, "LockService/Release", v1.ReleaseRequest, { name: "a", token }),
  revoke: () => asks(client, "LeaseService/RevokeLease", v1.RevokeLeaseRequest, { leaseId }),
});

describe("somebody else's lease, and what hangs on it", () => {
  it.each(["renew", "get", "use", "metadata", "downgrade", "transfer", "release", "revoke"] as const)(
    "cannot be had: %s",
    async (what) => {
      const { alice, bob } = await start();
      const hold = await held(alice);
      expect(await uses(bob, hold)[what]()).toBe("DENIED");
      // Nothing has happened: its owner may.
      expect(await uses(alice, hold).renew()).toBe("OK");
      const expected = { transfer: "NOT_WAITING", use: "INVALID" }[what as string] ?? "OK";
      expect(await uses(alice, hold)[what]()).toBe(expected);
    },
  );

  it("cannot be had by its request id either: the same id is another request of somebody else", async () => {
    const { alice, bob } = await start();
    const requestId = "one-and-the-same";
    const { token } = await held(alice, { requestId });
    const cancel = encode(v1.CancelAcquireRequest, { requestId });
    await bob.call("LockService/CancelAcquire", cancel);
    const validate = encode(v1.ValidateRequest, { name: "a", token });
    expect(decode(v1.ValidateResponse, await bob.call("LockService/Validate", validate)).held).toBe(true);
    const again = await alice.acquire({ name: "a", mode: 1, ttlMs: 60_000, requestId });
    expect(again.grant?.token).toBe(token);
  });
});

describe("somebody else's session", () => {
  it("cannot be resumed, and goes on", async () => {
    const { alice, bob } = await start();
    const stream = alice.attach().hello();
    const { welcome } = await stream.frame(0);
    const sessionId = welcome?.sessionId ?? "";
    stream.send({
      frame: 2,
      commands: [
        { seq: 1, createLease: { ttlMs: 60_000 } },
        { seq: 2, acquire: { name: "a", mode: 1, sessionLease: 1 } },
      ],
    });
    const { results } = await stream.frame(1);
    const token = results[1]?.acquire?.grant?.token ?? 0;
    const thief = await bob
      .attach()
      .hello({ sessionId, epoch: 2, claims: [token] })
      .status();
    expect(thief.reasonTrailer).toBe("DENIED");
    stream.send({ frame: 3, renew: true, ackedBelow: 3 });
    expect((await stream.frame(2)).renewals).toHaveLength(1);
    expect(await uses(bob, { token, leaseId: "" }).release()).toMatch(/^(DENIED|INVALID)$/);
    const resumed = alice.attach().hello({ sessionId, epoch: 3, claims: [token] });
    expect((await resumed.frame(0)).welcome?.lost).toEqual([]);
  });
});

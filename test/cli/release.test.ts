/** `leasehold release` against a pretended server: what it asks for, what it says, what it waits for. */
import { Metadata, status } from "@grpc/grpc-js";
import { decode, encode, encodeStatus, v1, type leasehold as wire } from "@leasehold/client/wire";
import { expect, onTestFinished, test } from "vitest";
import { fakeServer, leasehold } from "./support.js";

const DESCRIBE = "/leasehold.v1.LockService/DescribeLock";
const FORCE = "/leasehold.v1.AdminService/ForceRelease";
const LOCK = "orders/42";

type Request = ReturnType<typeof v1.ForceReleaseRequest.decode>;

/** A lock with holders of these tokens. Those that are being taken away are gone after so many more looks. */
async function lockServer(tokens: readonly number[], looks = 2) {
  let holders: wire.v1.Holder.$Properties[] = tokens.map((token) => ({ token, owner: `h/${token}`, heldMs: 1_000 }));
  const requests: Partial<Request>[] = [];
  let leftLooks = looks;
  const server = await fakeServer({
    [DESCRIBE]: () => {
      if (holders.some(({ revoking }) => revoking) && leftLooks-- === 0) {
        holders = holders.filter(({ revoking }) => !revoking);
      }
      return encode(v1.DescribeLockResponse, { name: LOCK, holders, holdersTotal: holders.length });
    },
    [FORCE]: (bytes) => {
      const { name, token, reason, now } = decode(v1.ForceReleaseRequest, bytes);
      requests.push({ name, token, reason, now });
      const taken = holders.filter((holder) => token === 0 || holder.token === token);
      if (token > 0 && taken.length === 0) refuse("STALE_TOKEN", `token ${token} does not hold it`);
      const ended = taken.map((holder) => holder.token ?? 0);
      if (now) {
        holders = holders.filter((holder) => !taken.includes(holder));
        return encode(v1.ForceReleaseResponse, { ended });
      }
      for (const holder of taken) holder.revoking = true;
      return encode(v1.ForceReleaseResponse, { revoking: ended, withinMs: 60_000 });
    },
  });
  onTestFinished(() => server.stop());
  const release = (...args: string[]) => leasehold(["release", LOCK, ...args, "--addr", server.address]);
  return { release, requests };
}

function refuse(reason: string, message: string): never {
  const code = status.FAILED_PRECONDITION;
  const metadata = new Metadata();
  metadata.set("grpc-status-details-bin", encodeStatus({ code, reason, message }));
  throw { code, details: message, metadata };
}

test("without --force it explains itself and does nothing", async () => {
  const { release, requests } = await lockServer([13]);
  const { code, stderr } = await release("--yes");
  expect([code, stderr]).toEqual([64, expect.stringMatching(/^leasehold release: .* give --force if that is meant/)]);
  expect(requests).toEqual([]);
});

test("without a terminal it does not ask, and needs --yes", async () => {
  const { release, requests } = await lockServer([13]);
  const { code, stderr } = await release("--force");
  expect([code, stderr]).toEqual([
    64,
    "leasehold release: there is no terminal to ask on; give --yes if it is meant\n",
  ]);
  expect(requests).toEqual([]);
});

test("it says from whom the lock is being taken, and stays until it is gone", async () => {
  const { release, requests } = await lockServer([13, 14]);
  expect(await release("--force", "--yes", "--reason", "hangs")).toEqual({
    code: 0,
    stdout: `${LOCK}: being taken away from token 13 (h/13), token 14 (h/14), within 1m\ngone\n`,
    stderr: "",
  });
  expect(requests).toEqual([{ name: LOCK, token: 0, reason: "hangs", now: false }]);
});

test("--no-wait does not stay", async () => {
  const { release } = await lockServer([13], 1_000_000);
  const { code, stdout } = await release("--force", "-y", "--no-wait");
  expect([code, stdout]).toEqual([0, `${LOCK}: being taken away from token 13 (h/13), within 1m\n`]);
});

test("--now ends it at once, --token one hold of several", async () => {
  const { release, requests } = await lockServer([13, 14]);
  const { code, stdout } = await release("--force", "--yes", "--now", "--token", "14");
  expect([code, stdout]).toEqual([0, `${LOCK}: ended token 14 (h/14)\n`]);
  expect(requests).toEqual([{ name: LOCK, token: 14, reason: "", now: true }]);
});

test("what nobody holds needs no release", async () => {
  const nobody = await lockServer([]);
  expect(await nobody.release("--force")).toMatchObject({ code: 0, stdout: `nobody holds ${LOCK}\n` });
  const other = await lockServer([13]);
  expect(await other.release("--force", "--token", "12")).toMatchObject({
    code: 0,
    stdout: `token 12 does not hold ${LOCK}\n`,
  });
  expect([...nobody.requests, ...other.requests]).toEqual([]);
});

test("it is JSON for programs", async () => {
  const { release } = await lockServer([13]);
  const { stdout } = await release("--force", "--yes", "--json");
  expect(JSON.parse(stdout)).toMatchObject({
    ...{ name: LOCK, holders: [{ token: 13, owner: "h/13" }], ended: [], revoking: [13], withinMs: 60_000, gone: true },
  });
});

// A backup has the ids of all leases in it: nobody but an administrator gets one, and each is written down.
import { readFileSync } from "node:fs";
import { expect, it, onTestFinished } from "vitest";
import { until } from "../e2e/support.js";
import { TestClient } from "../rpc/support.js";
import { file, secret, serve, tokenLine } from "./support.js";

const tokens = { worker: secret("lh_worker_2Ks8"), ops: secret("lh_ops_9Qw1") };

const POLICY = `
rules:
  - { principal: token/worker, prefix: "", verbs: [acquire, observe] }
  - { principal: token/ops, prefix: jobs/, verbs: [admin] }
`;
const FOR_ALL = POLICY.replace("jobs/", '""');

async function start(policy: string) {
  const auditLog = file("");
  const authTokens = file(tokenLine("worker", tokens.worker) + tokenLine("ops", tokens.ops));
  const server = await serve({ authTokens, policy: file(policy), auditLog });
  const audit = () =>
    readFileSync(auditLog, "utf8")
      .split("\n")
      .filter((line) => line.includes('"backup"') || line.includes('"denied"'))
      .map((line) => JSON.parse(line) as Record<string, unknown>);
  /** "OK", or the reason of the refusal. */
  const backup = async (who?: keyof typeof tokens) => {
    const client = new TestClient(server.address);
    onTestFinished(() => client.close());
    if (who) client.header("authorization", `Bearer ${tokens[who]}`);
    const { reason, bytes } = await client.readStream("AdminService/Backup", Buffer.alloc(0));
    return reason === "OK" && bytes === 0 ? "nothing" : reason;
  };
  return { audit, backup };
}

it("is for an administrator of all locks only", async () => {
  const some = await start(POLICY);
  expect(await some.backup()).toBe("UNAUTHENTICATED");
  expect(await some.backup("worker")).toBe("DENIED");
  expect(await some.backup("ops")).toBe("DENIED"); // of some locks
  await until(() => some.audit().length >= 2);
  expect(some.audit().map(({ event, principal, verb, prefix }) => ({ event, principal, verb, prefix }))).toEqual([
    { event: "denied", principal: "token/worker", verb: "admin", prefix: "" },
    { event: "denied", principal: "token/ops", verb: "admin", prefix: "" },
  ]);
});

it("is written down when it is made", async () => {
  const { audit, backup } = await start(FOR_ALL);
  expect(await backup("ops")).toBe("OK");
  await until(() => audit().length === 1);
  expect(audit()[0]).toMatchObject({
    event: "backup",
    principal: "token/ops",
    outcome: "OK",
    bytes: expect.any(Number),
  });
});

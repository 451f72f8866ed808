// A supervisor with a lock that is only pretended, in a process of its own, so that it can be stopped and killed. The
// job comes as JSON in the environment. What it is told by IPC: "stop_renewing", "lose". What it tells: the deadline of
// each renewal on the monotonic clock, and at the end the result.
import { stamp } from "../../dist/cli/run/belief.js";
import { Supervisor } from "../../dist/cli/run/supervisor.js";

const { command, plan, ttlMs } = JSON.parse(process.env.JOB);
const nowMs = () => stamp().monotonicMs;
const listeners = new Set();
let deadlineMs = 0;
let lost = null;

const lock = {
  name: "pretended",
  get state() {
    const remainingMs = deadlineMs - nowMs();
    if (lost === null && remainingMs <= 0) lost = "expired";
    return lost === null ? { is: "held", remainingMs } : { is: "lost", reason: lost };
  },
  on(_event, f) {
    listeners.add(f);
    return { [Symbol.dispose]: () => listeners.delete(f) };
  },
};

function renew() {
  if (lock.state.is === "lost" && deadlineMs > 0) return;
  lost = null;
  deadlineMs = nowMs() + ttlMs;
  process.send({ deadlineMs });
}
renew();
const renewal = setInterval(renew, ttlMs / 6);

process.on("message", (message) => {
  if (message === "stop_renewing") clearInterval(renewal);
  if (message === "lose") {
    lost = "revoked";
    for (const f of listeners) f();
  }
});

const env = { ...process.env, LEASEHOLD_RUN: command.marker };
new Supervisor(lock, { env, ...command }, plan, (result) => process.send({ result }, () => process.exit(0)));

/** Floors over HTTP: PUT raises one, GET reads it, DELETE resets it. */
import type { Admission } from "../admission/admission.js";
import { MODE_HEADER, readPresented, TOKEN_HEADER } from "../admission/presented.js";
import { askedOf } from "../admission/target.js";
import type { Presence } from "../admission/turns.js";
import { FenceError, invalid } from "../errors.js";
import { type Answer, json, plainProblem, TokenRequired } from "./problem.js";
import type { HttpRequest } from "./types.js";

const JSON_TYPE = "application/json";

/** The lock that the query names. Exactly one name and at most one slot: else two readers could read two different ones. */
function locked(url: string | undefined): { name: string; slot: number | undefined } {
  const query = new URLSearchParams(url?.split("?", 2)[1] ?? "");
  const names = query.getAll("name");
  const slots = query.getAll("slot");
  if (names.length !== 1 || slots.length > 1 || [...query.keys()].length !== names.length + slots.length) {
    throw invalid("the query must be one name and at most one slot");
  }
  const [slot] = slots;
  if (slot !== undefined && !/^\d{1,10}$/.test(slot)) throw invalid("the slot must be a whole number");
  return { name: names[0] as string, slot: slot === undefined ? undefined : Number(slot) };
}

/** Rejects with FenceErrors, and with what the service's functions throw. */
export async function answerFloor<Req extends HttpRequest>(
  admission: Admission<Req>,
  admin: ((req: Req) => boolean | Promise<boolean>) | undefined,
  req: Req,
  presence: Presence,
): Promise<Answer> {
  const { method, headers } = req;
  if (method !== "PUT" && method !== "GET" && method !== "DELETE") {
    return plainProblem(405, "Method Not Allowed", { allow: "GET, PUT, DELETE" });
  }
  const lock = locked(req.url);
  if (method === "PUT") {
    const presented = readPresented(headers[TOKEN_HEADER], headers[MODE_HEADER]);
    if (presented === undefined) throw new TokenRequired();
    const asked = askedOf(lock, presented);
    // With turns this waits for the end of what was let in before: its writes are to be seen by whoever reads now.
    const pass = await admission.admit(req, asked, presence);
    pass.end();
    return json(200, await floorOf(admission, asked.resource), JSON_TYPE);
  }
  if ((await admin?.(req)) !== true) throw new FenceError("DENIED", "only for administrators");
  const { resource } = askedOf(lock, { token: 0, mode: "exclusive" });
  if (method === "GET") return json(200, await floorOf(admission, resource), JSON_TYPE);
  await admission.reset(resource);
  return json(204, undefined, JSON_TYPE);
}

async function floorOf<Req>(admission: Admission<Req>, resource: string): Promise<{ resource: string; floor: number }> {
  return { resource, floor: await admission.floor(resource) };
}

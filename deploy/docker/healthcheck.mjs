// The container's health check: does the ops port of this container answer that the server lives? Over HTTPS when the
// server has a certificate, which is not verified: it names the address that clients use, and this asks itself.
import { request as http } from "node:http";
import { request as https } from "node:https";

const MS_MAX = 4_000;
const port = Number((process.env.LEASEHOLD_OPS_LISTEN ?? "").split(":").at(-1)) || 7421;
const secure = Boolean(process.env.LEASEHOLD_TLS_CERT);
const options = { host: "127.0.0.1", port, path: "/healthz", timeout: MS_MAX, rejectUnauthorized: false };

const end = (code) => process.exit(code);
setTimeout(() => end(1), MS_MAX);
(secure ? https : http)(options, (response) => end(response.statusCode === 200 ? 0 : 1))
  .on("error", () => end(1))
  .on("timeout", () => end(1))
  .end();

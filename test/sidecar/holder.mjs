// An application in a process of its own that holds a lock by a connection: `node holder.mjs SOCKET PATH`. Prints what it hears.
import { request } from "node:http";

const [, , socketPath, path] = process.argv;
const sent = request({ socketPath, path, method: "POST" }, (response) => response.pipe(process.stdout));
sent.on("error", () => process.exit(1));
sent.end();

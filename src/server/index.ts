/** A server inside one's own process: for tests, and for those who write their own composition. */
export { defaultConfig, type ServerConfig } from "./config/schema.js";
export { inMemoryTransport } from "./rpc/in-memory.js";
export { type RunningServer, type ServerHooks, startServer } from "./server.js";

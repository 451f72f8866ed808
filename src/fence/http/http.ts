/**
 * Fences over HTTP. A service puts `httpFence` in front of its handlers; its callers send their tokens with `fencedFetch`,
 * and raise floors at the grant with `httpFenceClient`.
 */
export type { AdmissionOptions, Admitted } from "../admission/admission.js";
export type { MessageClock } from "../admission/clock.js";
export { fenceStore } from "../admission/fence-store.js";
export type { HighWaterStore, Raised } from "../admission/high-water.js";
export { type LevelDatabase, type LevelStoreOptions, levelStore } from "../admission/level-store.js";
export { type MemoryStoreOptions, memoryStore } from "../admission/memory-store.js";
export type { Asked, Guarded } from "../admission/target.js";
export { type FencedFetchOptions, type Fetch, fencedFetch } from "./fetch.js";
export { type HttpFenceClientOptions, httpFenceClient } from "./remote.js";
export { type HttpFence, type HttpFenceOptions, httpFence } from "./server.js";
export type { FastifyReply, HttpRequest, HttpResponse, Next } from "./types.js";

/**
 * Fences over gRPC, for `@grpc/grpc-js`, which is passed in. A server gets `fenceServerInterceptor`; its callers send their
 * tokens with `fenceClientInterceptor`, and read refusals with `fenceErrorOf`.
 */
export type { AdmissionOptions, Admitted } from "../admission/admission.js";
export type { MessageClock } from "../admission/clock.js";
export { fenceStore } from "../admission/fence-store.js";
export type { HighWaterStore, Raised } from "../admission/high-water.js";
export { type LevelDatabase, type LevelStoreOptions, levelStore } from "../admission/level-store.js";
export { type MemoryStoreOptions, memoryStore } from "../admission/memory-store.js";
export type { Asked, Guarded } from "../admission/target.js";
export { type FenceClientInterceptorOptions, fenceClientInterceptor } from "./client.js";
export { fenceErrorOf } from "./refusal.js";
export {
  type CallToAdmit,
  type FenceServerInterceptor,
  type FenceServerInterceptorOptions,
  fenceServerInterceptor,
} from "./server.js";
export type { ClientModule, GrpcMetadata, MethodDescriptor, ServerCall, ServerModule } from "./types.js";

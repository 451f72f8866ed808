export { FenceError, type FenceErrorCode } from "./errors.js";
export type { Fence, Floor } from "./fence.js";
export {
  type Claim,
  claimFromEnvironment,
  type Fenced,
  type FencedLock,
  Hold,
  holdOf,
  holdsOf,
  slotOf,
} from "./hold.js";
export { TOKEN_MAX } from "./token.js";

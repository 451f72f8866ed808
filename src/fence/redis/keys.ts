/**
 * The keys of floors, and which keys may be written beside them.
 *
 * In a cluster a script can only touch keys of one hash slot, so the floor of a resource has to be in the slot of the data
 * that it guards. A resource has one floor, hence one slot, and the slot must follow from the resource alone: otherwise
 * two holders that write different keys would look at different floors.
 *
 * The key of a floor is `prefix{tag}`, or `prefix{tag}resource` where the tag is not the resource itself. By default the
 * tag is what Redis would hash of the resource if it were a key. So for a lock that is called `orders/42` the keys
 * `orders/42` and `{orders/42}:items` are in its slot; for one called `{user:7}/cart`, the keys `{user:7}…`. A name that
 * contains `}` and no tag cannot stand between braces as it is: there `%` and `}` are written as `%25` and `%7D`. Two
 * resources never share a key: a tag contains no `}`, so the first one ends it, and what follows is the resource.
 */
import { invalid, show } from "../errors.js";
import type { RedisBytes } from "./client.js";
import { hashTag, slotOfKey } from "./slots.js";

const TAG_BYTES_MAX = 1_600; // the longest name, each byte of it written as three

function defaultTag(resource: string): string {
  const tag = hashTag(resource);
  return tag.includes("}") ? tag.replaceAll("%", "%25").replaceAll("}", "%7D") : tag;
}

export interface FenceKeysOptions {
  readonly prefix: string;
  readonly tag: ((resource: string) => string) | undefined;
  /** Whether keys in another slot are refused. */
  readonly cluster: boolean;
  /** What the driver puts before every key. */
  readonly keyPrefix: Buffer;
}

export class FenceKeys {
  readonly #options: FenceKeysOptions;
  readonly #prefixBytes: Buffer;

  constructor(options: FenceKeysOptions) {
    const { prefix, tag } = options;
    if (typeof prefix !== "string" || prefix === "" || prefix.length > 256 || prefix.includes("{")) {
      throw invalid(`the prefix must be text of 1 to 256 characters without "{", not ${show(prefix)}`);
    }
    if (tag !== undefined && typeof tag !== "function") throw invalid(`tag must be a function, not ${show(tag)}`);
    this.#options = options;
    this.#prefixBytes = Buffer.from(prefix);
  }

  /** What stands between the braces of the floor's key. Throws INVALID when the option `tag` yields what cannot. */
  tag(resource: string): string {
    const { tag } = this.#options;
    if (tag === undefined) return defaultTag(resource);
    const chosen: unknown = tag(resource);
    if (typeof chosen === "string" && chosen !== "" && !chosen.includes("}") && chosen.length <= TAG_BYTES_MAX) {
      return chosen;
    }
    const objection = `must be text of 1 to ${TAG_BYTES_MAX} characters without "}", not ${show(chosen)}`;
    throw invalid(`the tag for ${show(resource)} ${objection}`);
  }

  /** The key of the floor. */
  floor(resource: string): string {
    const tag = this.tag(resource);
    return `${this.#options.prefix}{${tag}}${tag === resource ? "" : resource}`;
  }

  slot(key: RedisBytes): number {
    const { keyPrefix } = this.#options;
    const bytes = Buffer.from(key as string);
    return slotOfKey(keyPrefix.length === 0 ? bytes : Buffer.concat([keyPrefix, bytes]));
  }

  /** Throws INVALID unless these keys can be written beside this floor. */
  check(keys: readonly RedisBytes[], floorKey: string): void {
    for (const key of keys) {
      if (!(typeof key === "string" || Buffer.isBuffer(key)) || key.length === 0) {
        throw invalid(`a key must be text or a Buffer, and not empty, not ${show(key)}`);
      }
      if (this.#isFloor(key)) throw invalid(`the key ${show(String(key))} is one of the fence's own`);
    }
    if (!this.#options.cluster) return;
    const slot = this.slot(floorKey);
    for (const key of keys) {
      const other = this.slot(key);
      if (other === slot) continue;
      const slots = `${show(String(key))} is in the slot ${other} of the cluster, its fence in ${slot}`;
      throw invalid(`${slots}: begin the key with {${hashTag(floorKey)}}, or choose another tag by the option "tag"`);
    }
  }

  #isFloor(key: RedisBytes): boolean {
    if (typeof key === "string") return key.startsWith(this.#options.prefix);
    return key.subarray(0, this.#prefixBytes.length).equals(this.#prefixBytes);
  }
}

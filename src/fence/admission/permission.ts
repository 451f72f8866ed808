/**
 * Who may raise a floor.
 *
 * A floor that is too high locks everybody out who comes after. So a service that believes every token it is shown can be
 * stopped for ever by one request:
 *
 *     mallory: PUT /orders/42, Fencing-Token: 9007199254740991     <- the floor is now the highest number there is
 *     holder (token 34): PUT /orders/42                            <- stale, and so is everybody from now on
 *
 * Hence a floor is raised only for callers that the service knows (`authorize`), or to tokens that the lock server confirms
 * (`validate`). The lock server is asked only about a token that would raise a floor, that is once for each holder, and
 * requests that ask the same share one question.
 */
import { FenceError, invalid } from "../errors.js";
import { checkWhole } from "../token.js";
import type { Asked } from "./target.js";
import { within } from "./within.js";

export interface PermissionOptions<Caller> {
  /**
   * Whether this caller may write to the resource at all. Asked first, for each fenced request; `false` is answered with
   * DENIED. What it throws passes through.
   */
  readonly authorize?: ((caller: Caller, asked: Asked) => boolean | Promise<boolean>) | undefined;
  /**
   * Whether the lock of that name is held with that token now: `(name, token) => client.validate(name, token)`. Asked before
   * a floor is raised; `false` is answered with LOST, and nothing is raised.
   */
  readonly validate?: ((name: string, token: number) => Promise<boolean>) | undefined;
  /** How many questions to `validate` may be open at a time; beyond, requests are refused with LIMIT. Default: 64. */
  readonly validationsMax?: number | undefined;
}

const VALIDATIONS_MAX = 64;

export class Permission<Caller> {
  readonly #options: PermissionOptions<Caller>;
  readonly #validationsMax: number;
  readonly #limitMs: number;
  readonly #open = new Map<string, Promise<boolean>>();

  constructor(options: PermissionOptions<Caller>, limitMs: number) {
    const { authorize, validate, validationsMax = VALIDATIONS_MAX } = options;
    if (authorize === undefined && validate === undefined) {
      throw invalid("give authorize or validate: otherwise one forged token raises a floor for ever");
    }
    if (authorize !== undefined && typeof authorize !== "function") throw invalid("authorize must be a function");
    if (validate !== undefined && typeof validate !== "function") throw invalid("validate must be a function");
    this.#options = options;
    this.#validationsMax = checkWhole(validationsMax, "validationsMax", 1, 10_000);
    this.#limitMs = limitMs;
  }

  /** Rejects DENIED unless the caller may write there. */
  async toWrite(caller: Caller, asked: Asked): Promise<void> {
    // Only `true` permits: a promise that was forgotten, or an object, does not.
    const { authorize } = this.#options;
    if (authorize === undefined || (await authorize(caller, asked)) === true) return;
    throw new FenceError("DENIED", "not permitted", { resource: asked.resource });
  }

  /** Rejects LOST unless the token may raise the floor; LIMIT, UNREACHABLE when that cannot be found out. */
  async toRaise({ name, resource, token }: Asked): Promise<void> {
    if (this.#options.validate === undefined || (await this.#asked(name, token))) return;
    const message = `the lock ${JSON.stringify(name)} is not held with the token ${token}`;
    throw new FenceError("LOST", message, { resource, token });
  }

  #asked(name: string, token: number): Promise<boolean> {
    const key = `${token} ${name}`;
    const open = this.#open.get(key);
    if (open !== undefined) return open;
    if (this.#open.size >= this.#validationsMax) {
      throw new FenceError("LIMIT", `${this.#validationsMax} tokens are being validated already`);
    }
    const { validate } = this.#options;
    const ask = async () => validate?.(name, token);
    const answer = within(ask, (held) => held === true, this.#limitMs, "validate").finally(() =>
      this.#open.delete(key),
    );
    this.#open.set(key, answer);
    return answer;
  }
}

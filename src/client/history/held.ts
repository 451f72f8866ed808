/** Locks that record each look at them and what is done with them. */
import type { Leadership } from "../election/leadership.js";
import type { Lock } from "../lock.js";
import type { LockSet } from "../lock-set.js";
import type { Call, Recorder } from "./recorder.js";

const originals = new WeakMap<object, object>();

/** `target`, but for what `own` has. */
export function overlay<T extends object, R extends T = T>(target: T, own: Partial<R>): R {
  const proxy = new Proxy(target, {
    get(_, key) {
      if (Object.hasOwn(own, key)) return Reflect.get(own, key);
      const value: unknown = Reflect.get(target, key, target);
      return typeof value === "function" ? value.bind(target) : value;
    },
  });
  originals.set(proxy, target);
  return proxy as R;
}

/** What was wrapped, if anything was. */
export function originalOf<T extends object>(value: T): T {
  return (originals.get(value) as T | undefined) ?? value;
}

/** What is held, and how it is given back. */
export interface Kept<T> {
  readonly recorded: T;
  /** From now on it counts as gone. */
  leave(): void;
  /** It has been given back. */
  left(): Promise<unknown>;
}

type Looked = Pick<Lock, "name" | "grant" | "token" | "state" | "assertHeld">;

class Hold {
  readonly #recorder: Recorder;
  readonly #held: Looked;
  readonly #giveUp: () => Promise<boolean>;
  readonly #name: string;
  readonly #token: number;
  #leaving: Call | null = null;

  constructor(recorder: Recorder, held: Looked, giveUp: () => Promise<boolean>) {
    this.#recorder = recorder;
    this.#held = held;
    this.#giveUp = giveUp;
    this.#name = held.name;
    this.#token = held.grant.token;
  }

  /** The moment before the look is recorded: then it was held, if it is now. */
  look<T>(look: () => T): T {
    const ns = this.#recorder.nowNs();
    try {
      const value = look();
      this.#looked("ok", ns);
      return value;
    } catch (error) {
      this.#looked("fail", ns);
      throw error;
    }
  }

  #looked(type: "ok" | "fail", ns: number): void {
    const entry = { op: "refresh", type, name: this.#name, token: this.#token } as const;
    this.#recorder.write(this.#recorder.nextId(), entry, ns);
  }

  get token(): number {
    return this.look(() => this.#held.token);
  }

  assertHeld(options?: Parameters<Lock["assertHeld"]>[0]): void {
    this.look(() => this.#held.assertHeld(options));
  }

  leave(): void {
    if (this.#leaving) return;
    const ns = this.#recorder.nowNs();
    const { is } = this.#held.state;
    if (is !== "released") this.#looked(is === "lost" ? "fail" : "ok", ns);
    this.#leaving = this.call("release");
  }

  left(): Promise<boolean> {
    const released = this.#giveUp();
    void released.then((yes) => this.#leaving?.result({ op: "release", type: yes ? "ok" : "unknown" }));
    return released;
  }

  release(): Promise<boolean> {
    this.leave();
    return this.left();
  }

  call(op: "release" | "downgrade"): Call {
    return this.#recorder.call(op, { op, type: "invoke", name: this.#name, token: this.#token });
  }

  transfer(ticket: string): Call {
    const entry = { op: "transfer", type: "invoke", name: this.#name, token: this.#token, ticket } as const;
    return this.#recorder.call("transfer", entry);
  }
}

export function keptLock(recorder: Recorder, lock: Lock): Kept<Lock> {
  const hold = new Hold(recorder, lock, () => lock.release());
  const recorded = overlay<Lock>(lock, {
    get token() {
      return hold.token;
    },
    assertHeld: (options) => hold.assertHeld(options),
    release: () => hold.release(),
    transfer: (to) =>
      hold.transfer(String(to?.ticketId)).settle(lock.transfer(to), () => ({ op: "transfer", type: "ok" })),
    downgrade: () => hold.call("downgrade").settle(lock.downgrade(), () => ({ op: "downgrade", type: "ok" })),
    async [Symbol.asyncDispose]() {
      await hold.release();
    },
  });
  return { recorded, leave: () => hold.leave(), left: () => hold.left() };
}

export function keptTerm(recorder: Recorder, term: Leadership): Kept<Leadership> {
  const hold = new Hold(recorder, term, () => term.resign());
  const recorded = overlay<Leadership>(term, {
    get token() {
      return hold.token;
    },
    assertHeld: (options) => hold.assertHeld(options),
    resign: () => hold.release(),
    async [Symbol.asyncDispose]() {
      await hold.release();
    },
  });
  return { recorded, leave: () => hold.leave(), left: () => hold.left() };
}

export function keptSet(recorder: Recorder, set: LockSet): Kept<LockSet> {
  const kept = set.locks.map((lock) => keptLock(recorder, lock));
  const locks = kept.map(({ recorded }) => recorded);
  const leave = () => {
    for (const lock of kept) lock.leave();
  };
  const left = () => Promise.all(kept.map((lock) => lock.left()));
  const release = async () => {
    leave();
    return (await left()).every((released) => released === true);
  };
  const recorded = overlay<LockSet>(set, {
    locks,
    get: (name) => locks[set.locks.indexOf(set.get(name))] as Lock,
    assertHeld(options) {
      for (const lock of locks) lock.assertHeld(options);
    },
    release,
    async [Symbol.asyncDispose]() {
      await release();
    },
  });
  return { recorded, leave, left };
}

/** The rules that a history must keep, by their names. What they mean exactly is told where they are checked. */
export const rules = {
  "grant-inside-hold": "nobody is granted a lock while others provably hold it in a mode that does not go together",
  "held-together": "no two provably hold a lock at one moment in modes that do not go together",
  "slot-twice": "no two provably have the same slot of a semaphore at one moment",
  "token-twice": "every grant has a token of its own",
  "token-order": "what was granted before something else was asked for has the smaller token",
  "acquire-while-owned": "in the order of tokens, each grant goes together with those before it that still last",
  "grant-order": "grants have timestamps in the order of their tokens",
  "not-the-owner": "only who was granted a token succeeds with it",
  "after-the-end": "nothing succeeds with a token after it was released or transferred",
  "timestamp-twice": "the server gives no timestamp twice",
  "timestamp-order": "what the server gave before something else was asked for is smaller",
  "timestamp-backwards": "the timestamps that a process makes or asks for exceed all that it has seen",
  "stale-write": "a resource accepts no write with a lower token than one that it accepted before",
  "leader-order": "no observer is told of an older leader after a newer one",
} as const;

export type Rule = keyof typeof rules;

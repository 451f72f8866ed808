import { describe, expect, it } from "vitest";
import { Command } from "../../src/client/session/command.js";
import { Outbox } from "../../src/client/session/outbox.js";

class Plain extends Command {
  readonly wire = { seq: 0 };
  override onResult(): void {}
  override onSessionLost(): void {}
  override onFailure(): void {}
}

const limits = { inFlightMax: 100, frameBytesMax: 100_000 };

function outboxWith(count: number): Outbox {
  const outbox = new Outbox();
  for (let i = 0; i < count; i++) outbox.push(new Plain());
  expect(outbox.next(0, limits).map(({ seq }) => seq)).toEqual(Array.from({ length: count }, (_, i) => i + 1));
  return outbox;
}

describe("acknowledgements", () => {
  it("name what was answered beyond one that was not, once", () => {
    const outbox = outboxWith(6);
    for (const seq of [1, 3, 4, 6]) outbox.take(seq);
    expect(outbox.ackedBelow).toBe(2);
    expect(outbox.takeAckedAbove()).toEqual([3, 4, 6]);
    expect(outbox.takeAckedAbove()).toEqual([]);
    outbox.take(5);
    expect(outbox.takeAckedAbove()).toEqual([5]);
    outbox.take(2);
    expect(outbox.ackedBelow).toBe(7);
    expect(outbox.takeAckedAbove()).toEqual([]);
  });

  it("are left to the resumption when the stream breaks", () => {
    const outbox = outboxWith(4);
    for (const seq of [2, 4]) outbox.take(seq);
    outbox.disconnected();
    expect(outbox.resumed()).toEqual([1, 3]);
    expect(outbox.takeAckedAbove()).toEqual([]);
    expect(outbox.next(0, limits).map(({ seq }) => seq)).toEqual([1, 3]);
  });

  it("begin anew with a session", () => {
    const outbox = outboxWith(3);
    outbox.take(2);
    expect(outbox.reset()).toHaveLength(2);
    expect(outbox.takeAckedAbove()).toEqual([]);
    expect(outbox.ackedBelow).toBe(1);
    outbox.push(new Plain());
    expect(outbox.next(0, limits)).toMatchObject([{ seq: 1 }]);
  });
});

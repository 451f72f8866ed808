import { describe, expect, it } from "vitest";
import { duration, json, list, plain, size, table } from "../../src/cli/output.js";

describe("output", () => {
  it("shows durations with the precision that matters", () => {
    const cases: [number, string][] = [
      [0, "0ms"],
      [-5, "0ms"],
      [340, "340ms"],
      [1_000, "1.0s"],
      [12_340, "12.3s"],
      [59_949, "59.9s"],
      [59_951, "1m"],
      [260_000, "4m20s"],
      [3_600_000, "1h"],
      [10_920_000, "3h2m"],
      [90_000_000, "1d1h"],
    ];
    for (const [ms, text] of cases) expect(duration(ms), String(ms)).toBe(text);
  });

  it("shows sizes", () => {
    expect([0, 512, 1_024, 1_572_864, 5e15].map(size)).toEqual(["0 B", "512 B", "1.0 KiB", "1.5 MiB", "4547.5 TiB"]);
  });

  it("aligns columns, numbers to the right, nothing behind the last", () => {
    expect(
      table(
        ["NAME", "N>", "X"],
        [
          ["a", "1", ""],
          ["größer", "100", "y"],
        ],
      ),
    ).toBe("NAME      N  X\na         1\ngrößer  100  y\n");
    expect(
      list([
        ["a", "1"],
        ["long", "2"],
      ]),
    ).toBe("a     1\nlong  2\n");
  });

  it("disarms what clients put into names and owners", () => {
    expect(plain("a\u001b[2Jb\n\u009b\u202e\ud800ü漢")).toBe("a\\u{1b}[2Jb\\u{a}\\u{9b}\\u{202e}\\u{d800}ü漢");
  });

  it("prints JSON that ends its line", () => {
    expect(JSON.parse(json({ a: [1] }))).toEqual({ a: [1] });
    expect(json({}).endsWith("\n")).toBe(true);
  });
});

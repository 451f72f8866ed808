/** An invariant is broken. */
export class Violation extends Error {
  override readonly name = "Violation";
}

export function ensure(condition: boolean, message: () => string): void {
  if (!condition) throw new Violation(message());
}

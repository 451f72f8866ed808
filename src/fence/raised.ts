/**
 * Which floors this process has raised already, so that it does not raise them again for every write.
 *
 * It is knowledge, not belief: a floor never falls (but by an administrator), so what was committed once still holds. The
 * check beside the write stays; this only spares the raise before it.
 */

/** Resources that are remembered; a forgotten one costs a round trip. */
const RESOURCES_MAX = 10_000;

export class RaisedFloors {
  readonly #tokens = new Map<string, number>();

  /** Whether the floor of the resource is known to be at this token, or above. */
  has(resource: string, token: number): boolean {
    return (this.#tokens.get(resource) ?? -1) >= token;
  }

  add(resource: string, token: number): void {
    if (this.has(resource, token)) return;
    this.#tokens.delete(resource); // what was added last is forgotten last
    this.#tokens.set(resource, token);
    if (this.#tokens.size <= RESOURCES_MAX) return;
    for (const oldest of this.#tokens.keys()) {
      this.#tokens.delete(oldest);
      return;
    }
  }

  forget(resource: string): void {
    this.#tokens.delete(resource);
  }
}

interface Visit<T> {
  readonly node: T;
  readonly order: number;
  /** The lowest order that can be reached from here. */
  low: number;
  readonly successors: readonly T[];
  next: number;
  onPath: boolean;
}

/**
 * The circles among all that can be reached from `start`: the sets of nodes that are reached from each other, one that
 * is its own successor included. Tarjan's algorithm, without recursion: a graph of waits may be as deep as a queue is long.
 */
export function circlesFrom<T>(start: T, successorsOf: (node: T) => readonly T[]): T[][] {
  const visits = new Map<T, Visit<T>>();
  const path: Visit<T>[] = [];
  const calls: Visit<T>[] = [];
  const circles: T[][] = [];

  const visit = (node: T): void => {
    const order = visits.size;
    const entry: Visit<T> = { node, order, low: order, successors: successorsOf(node), next: 0, onPath: true };
    visits.set(node, entry);
    path.push(entry);
    calls.push(entry);
  };

  visit(start);
  for (let entry = calls.at(-1); entry !== undefined; entry = calls.at(-1)) {
    const successor = entry.successors[entry.next++];
    if (successor !== undefined) {
      const seen = visits.get(successor);
      if (seen === undefined) visit(successor);
      else if (seen.onPath) entry.low = Math.min(entry.low, seen.order);
      continue;
    }
    calls.pop();
    const caller = calls.at(-1);
    if (caller !== undefined) caller.low = Math.min(caller.low, entry.low);
    if (entry.low === entry.order) {
      const circle = closeCircle(path, entry);
      if (circle.length > 1 || entry.successors.includes(entry.node)) circles.push(circle);
    }
  }
  return circles;
}

/** Takes the finished set, which ends at `root`, off the path. */
function closeCircle<T>(path: Visit<T>[], root: Visit<T>): T[] {
  const circle: T[] = [];
  for (;;) {
    const entry = path.pop() as Visit<T>;
    entry.onPath = false;
    circle.push(entry.node);
    if (entry === root) return circle;
  }
}

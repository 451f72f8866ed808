import type { Mutations } from "../../src/server/journal/journal.js";

export function record(n: number): Mutations;
export function apply(entries: Map<string, string>, mutations: Mutations): void;

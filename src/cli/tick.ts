import { v1 } from "@leasehold/client/wire";
import type { Command } from "commander";
import { wholeNumber } from "./arguments.js";
import { type ConnectionOptions, connectionOptions, withServer } from "./common.js";
import { json, print } from "./output.js";

const method = {
  path: "/leasehold.v1.ClockService/Tick",
  request: v1.TickRequest,
  response: v1.TickResponse,
} as const;

export function registerTick(program: Command): void {
  const command = program
    .command("tick")
    .description("take Lamport timestamps: numbers that nobody else gets, greater than all before")
    .argument("[n]", "how many", wholeNumber, 1)
    .option("--observed <timestamp>", "a timestamp that the new ones must exceed", wholeNumber, 0);
  connectionOptions(command).action(async (count: number, options: ConnectionOptions & { observed: number }) => {
    const { observed } = options;
    const { first, last } = await withServer(options, (server) => server.call(method, { count, observed }));
    if (options.json) print(json({ first, last }));
    else print(first === last ? `${first}\n` : `${first}..${last}\n`);
  });
}

import { v1 } from "@leasehold/client/wire";
import { Argument, type Command } from "commander";
import { logLevels } from "../server/log.js";
import { type ConnectionOptions, connectionOptions, withServer } from "./common.js";
import { json, plain, print } from "./output.js";

const method = {
  path: "/leasehold.v1.AdminService/SetLogLevel",
  request: v1.SetLogLevelRequest,
  response: v1.SetLogLevelResponse,
} as const;

export function registerLogLevel(program: Command): void {
  const command = program
    .command("log-level")
    .description("set what a running server logs, until it ends; debug tells of every request")
    .addArgument(new Argument("<level>", "the least important level").choices(logLevels));
  connectionOptions(command).action(async (level: string, options: ConnectionOptions) => {
    const { previousLevel } = await withServer(options, (server) => server.call(method, { level }));
    print(options.json ? json({ level, previousLevel }) : `${plain(previousLevel)} -> ${level}\n`);
  });
}

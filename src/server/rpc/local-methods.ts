/** Unary calls that the core has no part in: they are answered at once, whatever the store does. */
import { decode, encode, v1 } from "@leasehold/client/wire";
import { type LogLevel, logLevels } from "../log.js";
import type { Demand } from "../security/access.js";
import { ADMINISTRATION } from "../security/demands.js";
import { invalid } from "./check.js";
import { failureOf, type WireFailure } from "./errors.js";

export interface LocalMethod {
  /** "/leasehold.v1.AdminService/SetLogLevel" */
  readonly path: string;
  /** What its caller must be permitted. */
  readonly demand: Demand;
  /** For the audit log; called with bytes that were answered. */
  act(bytes: Buffer): AdministrativeAct;
  /** Throws `WireError`. */
  answer(bytes: Buffer): Buffer | WireFailure;
}

import type { AdministrativeAct } from "./request-log.js";

/** Sets the level of the log, and returns what it was. */
export type SetLogLevel = (level: LogLevel) => LogLevel;

export function localMethods(setLogLevel: SetLogLevel): LocalMethod[] {
  return [
    {
      path: "/leasehold.v1.AdminService/SetLogLevel",
      demand: ADMINISTRATION,
      act: (bytes) => ({ event: "log_level", level: decode(v1.SetLogLevelRequest, bytes).level }),
      answer(bytes) {
        const { level } = decode(v1.SetLogLevelRequest, bytes);
        const known = logLevels.find((one) => one === level);
        if (known === undefined) return failureOf(invalid(`level must be one of ${logLevels.join(", ")}`));
        return encode(v1.SetLogLevelResponse, { previousLevel: setLogLevel(known) });
      },
    },
  ];
}

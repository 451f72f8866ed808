/** The options as a list, with the flag, the environment variable and the key that each of them has. */
import { z } from "zod";
import { optionInfo } from "./options.js";
import { configSchema } from "./schema.js";

export interface Option {
  /** Where the value is in the configuration: ["limits", "nameBytesMax"]. */
  readonly path: readonly string[];
  /** The key in a file: "limits.nameBytesMax". */
  readonly key: string;
  /** "--limits-name-bytes-max" */
  readonly flag: string;
  /** Under which commander hands the flag's value over: "limitsNameBytesMax". */
  readonly attribute: string;
  /** "LEASEHOLD_LIMITS_NAME_BYTES_MAX" */
  readonly variable: string;
  /** What stands for the value in a help text; "" for a switch. */
  readonly argument: string;
  readonly description: string;
  /** The default as a person would write it. */
  readonly fallback: string;
  readonly show: (value: unknown) => string | number | boolean;
}

const words = (name: string) => name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);

function option(path: readonly string[], schema: z.ZodType): Option {
  const info = optionInfo.get(schema);
  const description = schema.description;
  if (!info || !description) throw new Error(`the option ${path.join(".")} is not described`);
  const name = path.map(words).join("-");
  return {
    path,
    key: path.join("."),
    flag: `--${name}`,
    attribute: name.replace(/-([a-z0-9])/g, (_, letter: string) => letter.toUpperCase()),
    variable: `LEASEHOLD_${name.toUpperCase().replaceAll("-", "_")}`,
    argument: info.argument,
    description,
    fallback: String(info.show(schema.parse(undefined))) || "(none)",
    show: info.show,
  };
}

function list(schema: z.ZodObject, path: readonly string[]): Option[] {
  return Object.entries(schema.shape).flatMap(([name, member]) =>
    member instanceof z.ZodObject ? list(member, [...path, name]) : [option([...path, name], member as z.ZodType)],
  );
}

export const options: readonly Option[] = list(configSchema, []);

/** Names the configuration file. */
export const CONFIG_VARIABLE = "LEASEHOLD_CONFIG";

/** Variables of this prefix that belong to clients, to `leasehold run` and to its children. */
export const OTHER_VARIABLES: readonly string[] = [
  ...["LEASEHOLD_ADDR", "LEASEHOLD_CA", "LEASEHOLD_CERT", "LEASEHOLD_KEY", "LEASEHOLD_AUTH_TOKEN_FILE"],
  ...["LEASEHOLD_PLAINTEXT", "LEASEHOLD_LOCK", "LEASEHOLD_TOKEN"],
];

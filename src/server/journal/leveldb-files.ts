/**
 * Verifies LevelDB's files before LevelDB opens them.
 *
 * LevelDB trusts its files where it matters here. It drops a damaged part of its write-ahead log without a word, and
 * the switch that makes it strict is not within reach: records that were acknowledged would be missing at the very
 * end, where no gap betrays them. It reads table files without comparing checksums, and a damaged one can take the
 * whole process down. And without `CURRENT` it starts an empty database among the files of the old one.
 *
 * `CURRENT` names the manifest. The manifest is a log of edits: which table files are live, and from which number on
 * log files are replayed. Files that are not live may lie about, finished or not; LevelDB deletes them.
 */
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { JournalCorruptError } from "./journal.js";
import { readLog } from "./leveldb-log.js";
import { VarintReader, verifyTable } from "./leveldb-table.js";

/**
 * Throws `JournalCorruptError` naming file and offset. Without `mustExist` the directory may hold no database yet.
 */
export async function verifyLevelDb(directory: string, mustExist: boolean): Promise<void> {
  const files = await readdir(directory);
  if (!files.includes("CURRENT")) {
    const left = files.find((name) => /^\d+\.(log|ldb|sst)$/.test(name));
    if (!mustExist && left === undefined) return;
    throw new JournalCorruptError(`CURRENT is missing in ${directory}${left === undefined ? "" : `, but not ${left}`}`);
  }
  const current = await readFile(join(directory, "CURRENT"), "latin1");
  const manifest = /^(MANIFEST-\d+)\n$/.exec(current)?.[1];
  if (manifest === undefined || !files.includes(manifest)) {
    throw new JournalCorruptError(`CURRENT in ${directory} does not name a manifest that is there`);
  }
  const version = readManifest(await readFile(join(directory, manifest)), manifest);
  for (const [number, bytes] of version.tables) {
    const name = [`${number}.ldb`, `${number}.sst`].find((file) => files.includes(file));
    if (name === undefined) throw new JournalCorruptError(`${number}.ldb is missing in ${directory}`);
    const table = await readFile(join(directory, name));
    if (table.length !== bytes) {
      throw new JournalCorruptError(`${name} has ${table.length} bytes, and should have ${bytes}`);
    }
    verifyTable(table, name);
  }
  for (const name of files) {
    const number = /^(\d+)\.log$/.exec(name)?.[1];
    if (number === undefined || Number(number) < version.firstLog) continue;
    readLog(await readFile(join(directory, name)), name);
  }
}

interface Version {
  /** Live table files: number, as it is in the name, and size. */
  readonly tables: ReadonlyMap<string, number>;
  /** Log files are replayed from this number on. */
  readonly firstLog: number;
}

/** What a manifest says is in use. */
export function readManifest(bytes: Uint8Array, name: string): Version {
  // By level and number: an edit may delete a file from one level and add it to another.
  const live = new Map<string, [number: number, bytes: number]>();
  let firstLog = 0;
  let edits = 0;
  let fragments: Uint8Array[] = [];
  readLog(bytes, name, (data, last) => {
    fragments.push(data);
    if (!last) return;
    firstLog = applyEdit(new VarintReader(Buffer.concat(fragments)), live) ?? firstLog;
    fragments = [];
    edits++;
  });
  if (edits === 0) throw new JournalCorruptError(`${name} is empty`);
  const tables = new Map([...live.values()].map(([number, size]) => [String(number).padStart(6, "0"), size]));
  return { tables, firstLog };
}

/** Applies one edit; returns the number of the first log, if the edit states it. */
function applyEdit(edit: VarintReader, live: Map<string, [number: number, bytes: number]>): number | undefined {
  let firstLog: number | undefined;
  const added: [string, [number, number]][] = [];
  while (!edit.done) {
    const tag = edit.varint();
    if (tag === 1) edit.slice();
    else if (tag === 2) firstLog = edit.varint();
    else if (tag === 3 || tag === 4 || tag === 9) edit.varint();
    else if (tag === 5) {
      edit.varint();
      edit.slice();
    } else if (tag === 6) live.delete(`${edit.varint()}/${edit.varint()}`);
    else if (tag === 7) {
      const level = edit.varint();
      const number = edit.varint();
      added.push([`${level}/${number}`, [number, edit.varint()]]);
      edit.slice();
      edit.slice();
    } else throw new JournalCorruptError(`the manifest holds an unknown tag, ${tag}`);
  }
  for (const [key, file] of added) live.set(key, file);
  return firstLog;
}

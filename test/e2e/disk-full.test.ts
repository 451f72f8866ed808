import { execFileSync } from "node:child_process";
import { statfsSync, unlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, onTestFinished, test } from "vitest";
import { ServerProcess, temporaryFolder, until } from "./support.js";
import { load, mulberry32, Told, verify } from "./told.js";

/** A file system of 96 MiB, or undefined where mounting is not permitted. */
async function smallDisk(): Promise<string | undefined> {
  const folder = await temporaryFolder();
  try {
    execFileSync("mount", ["-t", "tmpfs", "-o", "size=96m", "tmpfs", folder], { stdio: "pipe" });
  } catch {
    return undefined;
  }
  onTestFinished(() => {
    execFileSync("umount", ["-l", folder]);
  });
  return folder;
}

test("a disk that fills up under load, is freed, filled with more load, and kill -9: nothing acknowledged is missing", async (context) => {
  const disk = await smallDisk();
  if (disk === undefined) return context.skip("mounting a small file system needs root");
  const seed = Number(process.env.LEASEHOLD_SEED ?? Date.now() % 1e9);
  console.log(`seed ${seed}`);
  const random = mulberry32(seed);
  const told = new Told();
  const server = await ServerProcess.start(`level:${disk}/data`);

  for (let round = 1; round <= 3; round++) {
    (await load(server, told, `before-${round}`, 3_000, random)).close();
    const { bavail, bsize } = statfsSync(disk);
    writeFileSync(join(disk, "ballast"), Buffer.alloc(bavail * bsize - 200_000, 1));
    // The load ends when the disk is full: the stream breaks, as the outcome of what was in flight is unknown.
    const full = await load(server, told, `full-${round}`, 10_000_000, random);
    full.close();
    expect(server.log).toMatch(/the store failed/);
    expect((await fetch(`http://${server.opsAddress}/healthz`)).status, "the process lives").toBe(200);

    unlinkSync(join(disk, "ballast"));
    const ready = async () => (await fetch(`http://${server.opsAddress}/readyz`)).status === 200;
    await until(ready, 30_000, "recovery");
    await verify(server, told);
    (await load(server, told, `after-${round}`, 3_000, random)).close();
    await server.kill();
    await server.restart();
    await verify(server, told);
  }
  console.log(`${told.grants} grants, ${told.releases} releases acknowledged, ${told.held.size} holds kept`);
}, 300_000);

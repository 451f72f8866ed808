// npm leaves packages for other platforms out of the lock file when the registry in use does not have them, and `npm ci`
// then refuses that lock file. This adds what is missing: run it after `npm install` has changed package-lock.json.
import { readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

const path = fileURLToPath(new URL("../package-lock.json", import.meta.url));
const lock = JSON.parse(readFileSync(path, "utf8"));
const platforms = ["darwin", "linux", "win32", "android", "freebsd", "openharmony"];

let added = 0;
for (const [owner, entry] of Object.entries(lock.packages)) {
  if (owner === "") continue;
  for (const [name, version] of Object.entries(entry.optionalDependencies ?? {})) {
    if (lock.packages[`node_modules/${name}`] || lock.packages[`${owner}/node_modules/${name}`]) continue;
    const words = name.split("/").pop().split("-");
    const os = words.find((word) => platforms.includes(word));
    if (os === undefined || !/^\d/.test(version)) continue;
    const cpu = words[words.indexOf(os) + 1]?.replace("armv7", "arm");
    lock.packages[`node_modules/${name}`] = {
      version,
      cpu: [cpu],
      ...(entry.dev ? { dev: true } : {}),
      optional: true,
      os: [os],
      ...(words.includes("musl") ? { libc: ["musl"] } : {}),
    };
    added++;
  }
}
lock.packages = Object.fromEntries(Object.entries(lock.packages).sort(([a], [b]) => (a < b ? -1 : 1)));
writeFileSync(path, `${JSON.stringify(lock, null, 2)}\n`);
console.log(`package-lock.json: ${added} packages of other platforms added`);

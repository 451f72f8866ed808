/** The records that the crash tests write: record `n` is a function of `n`, so that anybody can tell what must be there. */

/** @param {number} n */
export function record(n) {
  const size = Math.imul(n, 2654435761) >>> 20;
  const mutations = ["n", String(n), `hold/${n}`, "v".repeat(size % 3000), `hold/${n - 3}`, null];
  mutations.push(`lock/${n % 200}`, `held by ${n}`);
  if (n % 7 === 0) mutations.push(`lock/${(n * 13) % 200}`, null);
  return mutations;
}

/** @param {Map<string, string>} entries @param {readonly (string | null)[]} mutations */
export function apply(entries, mutations) {
  for (let i = 0; i < mutations.length; i += 2) {
    const value = mutations[i + 1];
    if (value === null) entries.delete(mutations[i]);
    else entries.set(mutations[i], value);
  }
}

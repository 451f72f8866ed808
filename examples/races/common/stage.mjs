/**
 * What all six races have in common: a race is run without protection until something has gone wrong, then looked at as an
 * operator would, then run again with each fix. A fix must leave nothing wrong; and without it something must have gone
 * wrong, or the run proves nothing.
 */

/**
 * @typedef {object} Outcome
 * @property {string} how what protects: "exclusive lock and fenced write"
 * @property {number} wrong outcomes that must not be
 * @property {number} of how many there were in all
 * @property {string} [note] what else is worth a look, such as "3 stale writes refused"
 */

/**
 * @typedef {object} Stage
 * @property {(text: string) => void} say one line of the story
 * @property {(command: string, output: string, prompt?: string) => void} diagnose a command that an operator would run, and
 *   what it printed
 * @property {(outcome: Outcome) => Outcome} outcome prints it and returns it
 */

/**
 * @typedef {object} Result
 * @property {number} number
 * @property {string} title
 * @property {string} systems
 * @property {string} wrong
 * @property {Outcome} without
 * @property {Outcome[]} fixed
 * @property {number} seconds
 */

const LINES_MAX = 20;

/**
 * Runs one race as a program of its own: tells the story on the standard output, sends the result to a parent if there is
 * one, and exits 1 if a fix has left anything wrong or nothing went wrong without one.
 *
 * @param {{ number: number, title: string, systems: string, wrong: string }} about `wrong`: what counts, "seats sold twice"
 * @param {(stage: Stage) => Promise<{ without: Outcome, fixed: Outcome[] }>} body
 */
export async function race(about, body) {
  const startedAt = performance.now();
  const seconds = () => (performance.now() - startedAt) / 1_000;
  const say = (/** @type {string} */ text) => console.log(`${seconds().toFixed(1).padStart(6)} s  ${text}`);
  console.log(`\n${about.number}. ${about.title} (${about.systems})`);
  const { without, fixed } = await body({
    say,
    diagnose(command, output, prompt = "$") {
      const lines = output.trimEnd().split("\n");
      console.log(`\n          ${prompt} ${command}`);
      for (const line of lines.slice(0, LINES_MAX)) console.log(`          ${line}`);
      if (lines.length > LINES_MAX) console.log(`          … ${lines.length - LINES_MAX} more lines`);
      console.log("");
    },
    outcome(outcome) {
      const { how, wrong, of, note } = outcome;
      say(`${how}: ${wrong} of ${of} ${about.wrong}${note ? ` (${note})` : ""}`);
      return outcome;
    },
  });
  const result = { ...about, without, fixed, seconds: seconds() };
  const failures = failuresOf(result);
  for (const failure of failures) console.log(`FAILED: ${failure}`);
  const code = failures.length === 0 ? 0 : 1;
  if (process.send) process.send(result, () => process.exit(code));
  else process.exit(code);
}

/** @param {Result} result */
export function failuresOf({ wrong, without, fixed }) {
  const failures = [];
  if (without.wrong === 0) failures.push(`${without.how}: 0 ${wrong}: this run proves nothing`);
  for (const fix of fixed) if (fix.wrong > 0) failures.push(`${fix.how}: ${fix.wrong} ${wrong}`);
  if (fixed.length === 0) failures.push("there is no fix");
  return failures;
}

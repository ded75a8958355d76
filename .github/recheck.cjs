// recheck on the regular expressions of standard input (tests/support/patterns.py): make lint-patterns
// Each must take time in proportion to the text, whatever the text is.
process.env.RECHECK_BACKEND = "pure";
const { checkSync } = require("recheck");
const { readFileSync } = require("node:fs");

const TIMEOUT = 300_000; // milliseconds, for one pattern
const FINE = ["safe", "linear"];

const patterns = JSON.parse(readFileSync(0, "utf8"));
let found = 0;
for (const { where, source, flags } of patterns) {
  const { complexity, error } = checkSync(source, flags, { checker: "automaton", timeout: TIMEOUT });
  if (FINE.includes(complexity?.type)) continue;
  const kind = complexity ? `takes ${complexity.summary} time` : `cannot be checked (${error.kind}: ${error.message ?? ""})`;
  console.error(`${where}: ${source} ${kind}`);
  found += 1;
}
console.log(`${patterns.length} patterns checked, ${found} refused`);
process.exit(found ? 1 : 0);

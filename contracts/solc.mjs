#!/usr/bin/env node
// Stands in for the solc binary, which npm does not offer: answers --version and --standard-json with solc-js.
import { existsSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import solc from "solc";

const here = dirname(fileURLToPath(import.meta.url));
const resolve = createRequire(import.meta.url).resolve;

const find = (path) => {
  const own = join(here, path);
  return { contents: readFileSync(existsSync(own) ? own : resolve(path), "utf8") };
};

if (process.argv.includes("--version")) {
  console.log(`solc, the solidity compiler commandline interface\nVersion: ${solc.version().replace(".Emscripten.clang", ".Linux.g++")}`);
} else if (process.argv.includes("--standard-json")) {
  const input = JSON.parse(readFileSync(0, "utf8"));
  for (const [path, source] of Object.entries(input.sources)) {
    if (source.urls) input.sources[path] = find(source.urls[0]);
  }
  const rename = (source) => ("contents" in source ? { content: source.contents } : source);
  input.sources = Object.fromEntries(Object.entries(input.sources).map(([path, source]) => [path, rename(source)]));
  process.stdout.write(solc.compile(JSON.stringify(input), { import: find }));
} else {
  console.error("only --version and --standard-json are answered here");
  process.exit(2);
}

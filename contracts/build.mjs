// Compiles the contracts into the package: `npm ci && npm run build`, or `node build.mjs OUTPUT_FOLDER`.
import { mkdirSync, readFileSync, readdirSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import solc from "solc";

const here = dirname(fileURLToPath(import.meta.url));
const resolve = createRequire(import.meta.url).resolve;
const output = process.argv[2] ?? join(here, "..", "twopm_flower", "chain", "artifacts");

const settings = {
  optimizer: { enabled: true, runs: 200 },
  evmVersion: "cancun",
  // Without the metadata hash the bytecode depends on the code alone, not on comments or paths.
  metadata: { bytecodeHash: "none", appendCBOR: false },
};
const sources = Object.fromEntries(
  readdirSync(join(here, "src"))
    .filter((name) => name.endsWith(".sol"))
    .sort()
    .map((name) => [`src/${name}`, { content: readFileSync(join(here, "src", name), "utf8") }]),
);
const wanted = [
  "abi",
  "evm.bytecode.object",
  "evm.deployedBytecode.object",
  "evm.deployedBytecode.immutableReferences",
  "storageLayout",
];
const input = {
  language: "Solidity",
  sources,
  settings: { ...settings, outputSelection: { "*": { "*": wanted, "": ["ast"] } } },
};

const findImport = (path) => ({ contents: readFileSync(resolve(path), "utf8") });
const result = JSON.parse(solc.compile(JSON.stringify(input), { import: findImport }));
const complaints = result.errors ?? [];
if (complaints.length > 0) {
  console.error(complaints.map((complaint) => complaint.formattedMessage).join("\n"));
  process.exit(1);
}

// The compiler refers to immutable values by the numbers of their declarations.
const names = {};
JSON.stringify(Object.values(result.sources), (_, node) => {
  if (node?.nodeType === "VariableDeclaration" && node.mutability === "immutable") names[node.id] = node.name;
  return node;
});

// Syntax-tree numbers differ with the order of files and say nothing about the layout.
const withoutNumbers = (layout) =>
  JSON.parse(JSON.stringify(layout).replaceAll(/,?"astId":\d+/g, "").replaceAll("{,", "{").replaceAll(/(\))\d+(_storage)?/g, "$1$2"));

mkdirSync(output, { recursive: true });
for (const source of Object.keys(sources)) {
  for (const [name, contract] of Object.entries(result.contracts[source])) {
    const { bytecode, deployedBytecode } = contract.evm;
    const immutables = Object.entries(deployedBytecode.immutableReferences ?? {}).flatMap(([id, places]) =>
      places.map(({ start, length }) => ({ name: names[id], start, length })),
    );
    const artifact = {
      contract: name,
      source: `contracts/${source}`,
      compiler: { name: "solc", version: solc.version(), settings },
      abi: contract.abi,
      bytecode: `0x${bytecode.object}`,
      deployedBytecode: `0x${deployedBytecode.object}`,
      immutables: immutables.sort((a, b) => a.start - b.start),
      storageLayout: withoutNumbers(contract.storageLayout),
    };
    writeFileSync(join(output, `${name}.json`), `${JSON.stringify(artifact, null, 1)}\n`);
    const size = deployedBytecode.object.length / 2;
    console.log(`${name}: ${size} bytes of ${24576}`);
  }
}

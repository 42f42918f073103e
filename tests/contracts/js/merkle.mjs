// Builds trees with @openzeppelin/merkle-tree and checks proofs that others made:
// a list of {types, leaves, proofs, root} in, a list of {root, accepted, proofs} out.
import { readFileSync } from "node:fs";
import { StandardMerkleTree } from "@openzeppelin/merkle-tree";

const trees = JSON.parse(readFileSync(0, "utf8"));
const results = trees.map(({ types, leaves, proofs, root }) => {
  const tree = StandardMerkleTree.of(leaves, types);
  return {
    root: tree.root,
    accepted: leaves.map((leaf, i) => StandardMerkleTree.verify(root, types, leaf, proofs[i])),
    proofs: leaves.map((leaf) => tree.getProof(leaf)),
  };
});
console.log(JSON.stringify(results));

"""Merkle trees: OpenZeppelin's, whatever the number and order of the leaves."""

import json
from pathlib import Path

import pytest
from eth_utils.crypto import keccak
from hypothesis import given
from hypothesis import strategies as st

from twopm_flower.errors import RecordError
from twopm_flower.records.merkle import MerkleTree, leaf_hash, root_from_proof, update_leaf

PUBLISHED = Path(__file__).parents[1] / "vectors" / "openzeppelin_merkle.json"
TREES = json.loads(PUBLISHED.read_text())["trees"]
LEAVES = st.lists(st.binary(min_size=32, max_size=32), min_size=1, max_size=40, unique=True)


def leaf_of(value):
    return update_leaf(
        value["task_id"], value["round"], value["attempt"], value["node"], value["update_digest"]
    )


@pytest.mark.parametrize("tree", TREES, ids=lambda tree: f"{len(tree['leaves'])} leaves")
def test_leaves_roots_and_proofs_are_openzeppelins(tree):
    ours = MerkleTree.of([leaf_of(entry["value"]) for entry in tree["leaves"]])
    assert "0x" + ours.root.hex() == tree["root"]
    for entry in tree["leaves"]:
        leaf = leaf_of(entry["value"])
        assert "0x" + leaf.hex() == entry["leaf"]
        assert ["0x" + node.hex() for node in ours.proof(leaf)] == entry["proof"]


@given(LEAVES, st.randoms(use_true_random=False))
def test_the_root_does_not_depend_on_the_order_of_the_leaves(leaves, random):
    shuffled = random.sample(leaves, len(leaves))
    assert MerkleTree.of(shuffled).root == MerkleTree.of(leaves).root


@given(LEAVES)
def test_every_proof_leads_to_the_root(leaves):
    tree = MerkleTree.of(leaves)
    for leaf in leaves:
        assert root_from_proof(leaf, tree.proof(leaf)) == tree.root


@given(LEAVES, st.integers(0, 39), st.integers(0, 255))
def test_no_other_leaf_has_a_proof(leaves, index, bit):
    tree = MerkleTree.of(leaves)
    leaf = leaves[index % len(leaves)]
    changed = (int.from_bytes(leaf) ^ (1 << bit)).to_bytes(32)
    assert root_from_proof(changed, tree.proof(leaf)) != tree.root


@given(st.lists(st.binary(min_size=32, max_size=32), min_size=2, max_size=40, unique=True))
def test_leaving_out_a_leaf_changes_the_root(leaves):
    assert MerkleTree.of(leaves[1:]).root != MerkleTree.of(leaves).root


def test_a_leaf_is_hashed_twice_so_that_it_is_no_inner_node():
    assert leaf_hash(["uint256"], [7]) == keccak(keccak((7).to_bytes(32)))


def test_a_tree_without_leaves_is_refused():
    with pytest.raises(RecordError, match="at least one"):
        MerkleTree.of([])


def test_the_same_leaf_twice_is_refused():
    with pytest.raises(RecordError, match="twice"):
        MerkleTree.of([b"1" * 32, b"1" * 32])


def test_a_leaf_that_is_not_there_has_no_proof():
    tree = MerkleTree.of([b"1" * 32, b"2" * 32])
    with pytest.raises(RecordError, match="not in the merkle tree"):
        tree.proof(b"3" * 32)


def test_an_inner_node_is_no_leaf():
    tree = MerkleTree.of([bytes([number]) * 32 for number in range(4)])
    with pytest.raises(RecordError, match="not in the merkle tree"):
        tree.proof(tree.nodes[1])

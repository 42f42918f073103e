"""Merkle trees that OpenZeppelin's `MerkleProof` and `StandardMerkleTree` accept.

Leaves are double-hashed ABI encodings, pairs are sorted before hashing, and the leaves are
sorted, so that the root does not depend on their order
(https://github.com/OpenZeppelin/merkle-tree, "standard" trees).
"""

from collections.abc import Sequence
from dataclasses import dataclass

from eth_abi.abi import encode
from eth_utils.crypto import keccak

from twopm_flower.errors import RecordError

UPDATE_LEAF = ("bytes32", "uint32", "uint32", "address", "bytes32")
RECEIPT_LEAF = ("address", "bytes32")


def leaf_hash(types: Sequence[str], values: Sequence[object]) -> bytes:
    """Return the 32-byte leaf: keccak256 of keccak256 of the ABI encoding.

    The second hash keeps a leaf from being mistaken for an inner node.
    """
    return keccak(keccak(encode(list(types), list(values))))


def update_leaf(task_id: str, round_: int, attempt: int, node: str, digest: str) -> bytes:
    """Return the leaf of one node's update: (task, round, attempt, node, update digest)."""
    values = (bytes.fromhex(task_id[2:]), round_, attempt, node, bytes.fromhex(digest[2:]))
    return leaf_hash(UPDATE_LEAF, values)


def receipt_leaf(issuer: str, receipt_digest: str) -> bytes:
    """Return the leaf of one receipt: (account that anchors it, EIP-712 digest of the receipt)."""
    return leaf_hash(RECEIPT_LEAF, (issuer, bytes.fromhex(receipt_digest[2:])))


def _parent(left: bytes, right: bytes) -> bytes:
    return keccak(left + right if left < right else right + left)


@dataclass(frozen=True)
class MerkleTree:
    """A complete binary tree over sorted leaves, in OpenZeppelin's array layout.

    Attributes
    ----------
    nodes : tuple of bytes
        ``2 n - 1`` hashes of 32 bytes; node 0 is the root, the children of node i are
        2 i + 1 and 2 i + 2, the sorted leaves fill the end in reverse.
    """

    nodes: tuple[bytes, ...]

    @classmethod
    def of(cls, leaves: Sequence[bytes]) -> "MerkleTree":
        """Build the tree over at least one leaf.

        Raises
        ------
        RecordError
            No leaves, or the same leaf twice.
        """
        if not leaves:
            raise RecordError("a merkle tree needs at least one leaf")
        if len(set(leaves)) != len(leaves):
            raise RecordError("the same leaf stands in the merkle tree twice")
        count = len(leaves)
        nodes = [b""] * (2 * count - 1)
        for index, leaf in enumerate(sorted(leaves)):
            nodes[2 * count - 2 - index] = leaf
        for index in reversed(range(count - 1)):
            nodes[index] = _parent(nodes[2 * index + 1], nodes[2 * index + 2])
        return cls(tuple(nodes))

    @property
    def root(self) -> bytes:
        """The root, 32 bytes."""
        return self.nodes[0]

    def proof(self, leaf: bytes) -> tuple[bytes, ...]:
        """Return the sibling hashes from `leaf` up to the root.

        Raises
        ------
        RecordError
            The leaf is not in the tree.
        """
        first_leaf = len(self.nodes) // 2
        if leaf not in self.nodes[first_leaf:]:
            raise RecordError(f"leaf 0x{leaf.hex()} is not in the merkle tree")
        index = self.nodes.index(leaf, first_leaf)
        siblings = []
        while index > 0:
            siblings.append(self.nodes[index + 1 if index % 2 else index - 1])
            index = (index - 1) // 2
        return tuple(siblings)


def root_from_proof(leaf: bytes, proof: Sequence[bytes]) -> bytes:
    """Return the root that `leaf` and its proof lead to."""
    for sibling in proof:
        leaf = _parent(leaf, sibling)
    return leaf

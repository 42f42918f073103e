"""A batch that an issuer anchored includes its receipts, and the contract sees it by our proofs."""

import pytest
from contract_calls import ZERO, Contracts, signer, word

from twopm_flower.chain.devnet import Devnet
from twopm_flower.errors import TransactionReverted
from twopm_flower.records.merkle import MerkleTree, receipt_leaf

ISSUER, OTHER = signer(3), signer(4)


@pytest.fixture(scope="module")
def contracts(tmp_path_factory):
    with Devnet(tmp_path_factory.mktemp("receipts")) as devnet:
        contracts = Contracts(devnet)
        for account in (ISSUER, OTHER):
            contracts.fund(account)
        yield contracts


def anchor(contracts, root, count, caller=ISSUER):
    return contracts.do("ReceiptRegistry", "anchor", root, count, caller=caller)


def included(contracts, tree, leaf, proof, issuer=ISSUER):
    where = (issuer.address, tree.root, leaf, list(proof))
    return contracts.get("ReceiptRegistry", "includes", *where)


@pytest.mark.parametrize("count", [1, 2, 3, 5, 8, 13])
def test_each_receipt_of_a_batch_is_found_and_no_other(contracts, count):
    digests = ["0x" + word(100 * count + number).hex() for number in range(count + 1)]
    leaves = [receipt_leaf(ISSUER.address, digest) for digest in digests]
    *leaves, foreign = leaves
    tree = MerkleTree.of(leaves)
    assert not included(contracts, tree, leaves[0], tree.proof(leaves[0]))
    anchor(contracts, tree.root, count)
    for leaf in leaves:
        assert included(contracts, tree, leaf, tree.proof(leaf))
        assert not included(contracts, tree, foreign, tree.proof(leaf))
        assert not included(contracts, tree, leaf, [*tree.proof(leaf), word(1)])
        assert not included(contracts, tree, leaf, tree.proof(leaf), issuer=OTHER)
    for digest in digests[:-1]:
        theirs = receipt_leaf(OTHER.address, digest)
        proof = tree.proof(receipt_leaf(ISSUER.address, digest))
        assert not included(contracts, tree, theirs, proof)


def test_an_anchor_says_when_and_how_many_and_is_never_replaced(contracts):
    receipt = anchor(contracts, word(7), 5)
    block = contracts.rpc.web3.eth.get_block(receipt["blockNumber"])
    anchored = (receipt["blockNumber"], block["timestamp"], 5)
    for count in (5, 6):
        with pytest.raises(TransactionReverted) as refusal:
            anchor(contracts, word(7), count)
        assert refusal.value.error_name == "AlreadyAnchored"
    anchor(contracts, word(7), 9, caller=OTHER)
    stored = contracts.get("ReceiptRegistry", "anchorOf", ISSUER.address, word(7))
    assert tuple(stored) == anchored
    assert contracts.get("ReceiptRegistry", "anchorOf", OTHER.address, word(7))[2] == 9


@pytest.mark.parametrize(
    ("root", "count", "error"), [(ZERO, 1, "ZeroDigest"), (word(8), 0, "EmptyBatch")]
)
def test_a_batch_of_nothing_is_refused(contracts, root, count, error):
    with pytest.raises(TransactionReverted) as refusal:
        anchor(contracts, root, count)
    assert refusal.value.error_name == error

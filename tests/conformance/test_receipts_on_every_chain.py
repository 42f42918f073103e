import secrets

import numpy as np
import pytest
from chain_stage import digest, refused

from twopm_flower.errors import RecordConflict
from twopm_flower.privacy.linear_parameters import LinearParameters
from twopm_flower.records.digest import ZERO_DIGEST
from twopm_flower.records.inference import (
    Anchoring,
    ModelCard,
    PredictionReceipt,
    PredictionRequest,
    ReceiptFile,
)
from twopm_flower.records.merkle import MerkleTree, receipt_leaf
from twopm_flower.records.statements import sign
from twopm_flower.signer.keystore import LocalSigner
from twopm_flower.verify.receipt import verify_receipt


@pytest.fixture
def root():
    return "0x" + secrets.token_hex(32)


def test_a_batch_is_anchored_once_by_each_issuer(stage, stranger, root):
    issuer = stage.connector.account
    assert stage.connector.receipt_anchor(issuer, root) is None
    anchor = stage.connector.anchor_receipts(root, 12)
    assert (anchor.issuer, anchor.root, anchor.count) == (issuer, root, 12)
    assert anchor.block_hash == stage.connector.block_hash(anchor.block_number)
    assert stage.connector.receipt_anchor(issuer, root) == anchor
    assert stage.connector.anchor_receipts(root, 12) == anchor
    with pytest.raises(RecordConflict):
        stage.connector.anchor_receipts(root, 13)
    other = stranger.connector.anchor_receipts(root, 13)
    assert (other.issuer, other.count) == (stranger.connector.account, 13)
    assert stage.connector.receipt_anchor(issuer, root) == anchor


def test_a_batch_of_nothing_is_refused(stage, root):
    with refused("ZeroDigest"):
        stage.connector.anchor_receipts(digest(0), 1)
    with refused("EmptyBatch"):
        stage.connector.anchor_receipts(root, 0)


SERVICE, REQUESTER = LocalSigner(b"\1" * 32), LocalSigner(b"\2" * 32)


def receipt_of(deployment, task_id, issuer):
    """A signed receipt of a task whose model has the digest that stages finalise with."""
    weight, bias = np.ones((1, 2), np.float32), np.zeros(1, np.float32)
    parameters = LinearParameters.derive(weight, bias, np.ones(2), "public")
    model = {"model_digest": digest(7), "parameters_id": parameters.identifier}
    card = ModelCard(
        deployment=deployment,
        task_id=task_id,
        layout={},
        model_family="logistic-regression",
        link="identity",
        weights="public",
        features=("a", "b"),
        encoding={},
        ranges=(1.0, 1.0),
        parameters=parameters.to_dict(),
        classes=("score",),
        service=SERVICE.address,
        issuer=issuer,
        price=0,
        query_budget=None,
        max_rows=1,
        **model,
    )
    asked = {"request_digest": digest(3), "rows": 1, "issued_at": 5, **model}
    request = PredictionRequest(service=SERVICE.address, **asked)
    receipt = PredictionReceipt(
        task_id=task_id,
        card_digest=card.digest,
        requester=REQUESTER.address,
        response_digest=digest(4),
        mask_commitment=ZERO_DIGEST,
        issuer=issuer,
        price=0,
        **asked,
    )
    domain = deployment.receipt_domain
    return ReceiptFile(
        card=card,
        request=sign(request, REQUESTER, domain),
        receipt=sign(receipt, SERVICE, domain),
        mask_seed=None,
        anchoring=None,
    )


def test_a_receipt_is_verified_against_the_chain_that_it_is_anchored_on(
    stage, stranger, finalised, running
):
    issuer = stage.connector.account
    deployment = stage.connector.deployment()

    def verified(file):
        report = verify_receipt(file, None, None, chain=stage.connector)
        failure = report.first_failure
        return report.exit_code, None if failure is None else failure.number

    file = receipt_of(deployment, finalised, issuer)
    assert verified(file) == (2, None)
    others = [receipt_leaf(issuer, "0x" + secrets.token_hex(32)) for _ in range(4)]
    leaf = receipt_leaf(issuer, file.receipt_digest)
    tree = MerkleTree.of([leaf, *others])
    root = "0x" + tree.root.hex()

    def anchored(anchor, **changes):
        anchoring = {
            "issuer": issuer,
            "root": root,
            "count": 5,
            "proof": tuple("0x" + sibling.hex() for sibling in tree.proof(leaf)),
            "transaction_hash": anchor.transaction_hash,
            "block_number": anchor.block_number,
        }
        return file.model_copy(update={"anchoring": Anchoring(**anchoring | changes)})

    theirs = stranger.connector.anchor_receipts(root, 5)
    assert verified(anchored(theirs)) == (1, 9)
    ours = stage.connector.anchor_receipts(root, 5)
    assert verified(anchored(ours)) == (0, None)
    assert verified(anchored(ours, count=6)) == (1, 9)
    assert verified(anchored(ours, issuer=theirs.issuer)) == (1, 8)
    assert verified(receipt_of(deployment, running, issuer)) == (1, 7)

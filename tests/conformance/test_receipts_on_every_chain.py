import secrets

import pytest
from chain_stage import digest, refused

from twopm_flower.errors import RecordConflict


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

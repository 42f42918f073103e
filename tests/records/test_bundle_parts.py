"""The parts of a bundle that stand on their own; whole bundles are tested with the verifier."""

import base64

import pytest
from pydantic import TypeAdapter
from record_factories import DOMAIN, SIGNER, a_member, d, statements

from twopm_flower.errors import RecordError
from twopm_flower.records.bundle import (
    Base64,
    DealtKey,
    Deployment,
    Finalisation,
    JoinRequest,
    NodeCard,
    SealedBoxes,
)
from twopm_flower.records.manifest import OpenedMetrics
from twopm_flower.records.statements import KeyDeal, Registration, sign

DEPLOYMENT = Deployment(
    chain_id=5,
    genesis_hash=d(1),
    node_registry="0x" + "00" * 19 + "11",
    data_registry="0x" + "00" * 19 + "44",
    receipt_registry="0x" + "00" * 19 + "55",
    task_registry="0x" + "00" * 19 + "22",
)


def signed(kind):
    return sign(next(s for s in statements() if isinstance(s, kind)), SIGNER, DOMAIN)


def test_registrations_and_statements_are_signed_for_different_contracts():
    assert DEPLOYMENT.domain.verifying_contract == DEPLOYMENT.task_registry
    assert DEPLOYMENT.registry_domain.verifying_contract == DEPLOYMENT.node_registry


def test_dealt_keys_cards_and_join_requests_come_back_from_their_bytes():
    boxes = SealedBoxes(backend="bfv", boxes={SIGNER.address: "0x00ff"})
    membership = a_member(SIGNER).signed(d(1), d(2))
    for record in (
        boxes,
        DealtKey(deal=signed(KeyDeal), boxes=boxes),
        NodeCard(name="a", registration=signed(Registration)),
        JoinRequest(registration=signed(Registration), membership=membership),
        Finalisation(transaction_hash=d(1), block_number=2, model_digest=d(3), metrics_digest=d(4)),
        OpenedMetrics(task_id=d(1), round=1, sums={"correct": 3}),
    ):
        assert type(record).from_bytes(record.to_bytes()) == record


def test_the_digest_of_sealed_boxes_covers_reader_and_box():
    digests = {
        SealedBoxes(backend="bfv", boxes={SIGNER.address: box}).digest for box in ("0x", "0x00")
    }
    digests.add(SealedBoxes(backend="bfv", boxes={}).digest)
    assert len(digests) == 3


@pytest.mark.parametrize("text", ["0x0", "0xAB", "ab", "0xzz"])
def test_a_box_is_lower_case_hexadecimal(text):
    with pytest.raises(RecordError, match="boxes"):
        SealedBoxes.from_json({"version": 1, "backend": "bfv", "boxes": {SIGNER.address: text}})


def test_metrics_are_bound_to_task_and_round():
    digests = {
        OpenedMetrics(task_id=d(task), round=number, sums={"a": 1}).digest
        for task in (1, 2)
        for number in (1, 2)
    }
    assert len(digests) == 4


@pytest.mark.parametrize("text", ["QQ", "QQ=", "QR==", "Q Q==", "QQ==\n", "*", "QQ==QQ=="])
def test_base64_has_one_spelling(text):
    adapter = TypeAdapter(Base64)
    assert adapter.validate_python(base64.b64encode(b"A").decode()) == "QQ=="
    with pytest.raises(ValueError, match=r"base64|padd|Base64|characters"):
        adapter.validate_python(text)

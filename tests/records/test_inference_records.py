"""What is signed about a private prediction has one form, and binds all that it should."""

import pytest
from eth_account import Account
from eth_account.messages import encode_typed_data
from hypothesis import given
from hypothesis import strategies as st

from twopm_flower.errors import RecordError, SignatureError
from twopm_flower.records.bundle import Deployment
from twopm_flower.records.inference import (
    Anchoring,
    ModelCard,
    PredictionReceipt,
    PredictionRequest,
    QueryBudget,
    ReceiptFile,
)
from twopm_flower.records.merkle import MerkleTree, receipt_leaf, root_from_proof
from twopm_flower.records.statements import parse_signed, sign
from twopm_flower.signer.keystore import LocalSigner

SERVICE, REQUESTER = LocalSigner(b"\1" * 32), LocalSigner(b"\2" * 32)


def word(byte):
    return "0x" + f"{byte:02x}" * 32


DEPLOYMENT = Deployment(
    chain_id=2_718_281_828,
    genesis_hash=word(9),
    node_registry="0x" + "00" * 19 + "11",
    task_registry="0x" + "00" * 19 + "22",
    data_registry="0x" + "00" * 19 + "44",
    receipt_registry="0x" + "00" * 19 + "55",
)
DOMAIN = DEPLOYMENT.receipt_domain


def card(**changes):
    fields = {
        "deployment": DEPLOYMENT,
        "task_id": word(1),
        "model_digest": word(2),
        "layout": {"arrays": [], "metrics": []},
        "model_family": "logistic-regression",
        "link": "sigmoid",
        "weights": "public",
        "features": ("age", "G2"),
        "encoding": {"setup": "A"},
        "ranges": (1.0, 4.0),
        "parameters": {"features": 2},
        "parameters_id": word(3),
        "classes": ("fail", "pass"),
        "service": SERVICE.address,
        "issuer": SERVICE.address,
        "price": 7,
        "query_budget": QueryBudget(rows=1000, period_s=86_400),
        "max_rows": 100,
    }
    return ModelCard(**{**fields, **changes})


def request(**changes):
    fields = {
        "service": SERVICE.address,
        "model_digest": word(2),
        "parameters_id": word(3),
        "request_digest": word(4),
        "rows": 1,
        "issued_at": 1_790_000_000,
    }
    return PredictionRequest(**{**fields, **changes})


def receipt(**changes):
    fields = {
        "task_id": word(1),
        "card_digest": card().digest,
        "model_digest": word(2),
        "parameters_id": word(3),
        "requester": REQUESTER.address,
        "request_digest": word(4),
        "response_digest": word(5),
        "mask_commitment": word(0),
        "issuer": SERVICE.address,
        "rows": 1,
        "price": 7,
        "issued_at": 1_790_000_001,
    }
    return PredictionReceipt(**{**fields, **changes})


def receipt_file():
    signed = sign(receipt(), SERVICE, DOMAIN)
    digest = "0x" + signed.statement.signing_hash(DOMAIN).hex()
    leaves = [receipt_leaf(SERVICE.address, d) for d in (digest, word(6), word(7))]
    tree = MerkleTree.of(leaves)
    return ReceiptFile(
        card=card(),
        request=sign(request(), REQUESTER, DOMAIN),
        receipt=signed,
        mask_seed=None,
        anchoring=Anchoring(
            issuer=SERVICE.address,
            root="0x" + tree.root.hex(),
            count=3,
            proof=tuple("0x" + sibling.hex() for sibling in tree.proof(leaves[0])),
            transaction_hash=word(8),
            block_number=5,
        ),
    )


@pytest.mark.parametrize("statement", [request(), receipt()])
def test_a_statement_is_typed_data_as_every_wallet_hashes_it(statement):
    message = encode_typed_data(DOMAIN.typed(), statement.types(), statement.message())
    signed = sign(statement, SERVICE, DOMAIN)
    theirs = Account.sign_message(message, b"\1" * 32)
    assert signed.signature == "0x" + theirs.signature.hex().removeprefix("0x")


@pytest.mark.parametrize("statement", [request(), receipt()])
def test_every_field_of_a_statement_is_signed(statement):
    digests = {statement.signing_hash(DOMAIN)}
    for field, value in statement:
        other = value + 1 if isinstance(value, int) else value[:2] + "1" * (len(value) - 2)
        digests.add(statement.model_copy(update={field: other}).signing_hash(DOMAIN))
    assert len(digests) == 1 + len(statement.TYPES) == 1 + len(type(statement).model_fields)


def test_a_statement_for_another_chain_or_registry_is_not_signed_for_this_one():
    signed = sign(receipt(), SERVICE, DOMAIN)
    for change in ({"chain_id": 1}, {"receipt_registry": "0x" + "00" * 19 + "66"}):
        with pytest.raises(SignatureError):
            signed.check(DEPLOYMENT.model_copy(update=change).receipt_domain)
    assert DOMAIN not in (DEPLOYMENT.domain, DEPLOYMENT.data_domain, DEPLOYMENT.registry_domain)


def test_a_request_is_no_receipt():
    signed = sign(request(), REQUESTER, DOMAIN)
    with pytest.raises(RecordError):
        parse_signed(PredictionReceipt, signed.to_json())
    assert parse_signed(PredictionRequest, signed.to_json()) == signed


def test_records_survive_their_bytes():
    file = receipt_file()
    assert ReceiptFile.from_bytes(file.to_bytes()) == file
    assert ModelCard.from_bytes(card().to_bytes()) == card()
    unanchored = file.model_copy(update={"anchoring": None})
    assert ReceiptFile.from_bytes(unanchored.to_bytes()) == unanchored
    assert file.receipt_digest == unanchored.receipt_digest


def test_every_field_of_a_card_changes_its_digest():
    changes = {
        "deployment": DEPLOYMENT.model_copy(update={"chain_id": 1}),
        "layout": {"arrays": [], "metrics": [1]},
        "link": "identity",
        "weights": "secret",
        "features": ("age", "G1"),
        "encoding": {"setup": "B"},
        "ranges": (1.0, 4.5),
        "parameters": {"features": 3},
        "classes": ("pass", "fail"),
        "service": REQUESTER.address,
        "issuer": REQUESTER.address,
        "price": 8,
        "query_budget": None,
        "max_rows": 101,
        "model_family": "other",
        **dict.fromkeys(("task_id", "model_digest", "parameters_id"), word(99)),
    }
    assert changes.keys() == ModelCard.model_fields.keys() - {"format"}
    digests = {card().digest, *(card(**{name: value}).digest for name, value in changes.items())}
    assert len(digests) == 1 + len(changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"format": "twopm-flower/model-card/v2"},
        {"ranges": [1.0]},
        {"ranges": [1.0, 0.0]},
        {"ranges": [1.0, -4.0]},
        {"ranges": [1.0, "4"]},
        {"ranges": [1.0, True]},
        {"features": ["age", "age"]},
        {"features": []},
        {"features": ["age", ""]},
        {"classes": ["pass", "pass"]},
        {"link": "probit"},
        {"weights": "open"},
        {"price": -1},
        {"price": 2**53},
        {"price": 1.5},
        {"max_rows": 0},
        {"max_rows": 2**32},
        {"query_budget": {"rows": 0, "period_s": 1}},
        {"query_budget": {"rows": 1}},
        {"service": SERVICE.address.lower()},
        {"parameters": []},
        {"unknown": 1},
    ],
)
def test_a_card_that_makes_no_sense_is_none(changes):
    with pytest.raises(RecordError):
        ModelCard.from_json({**card().to_json(), **changes})


@pytest.mark.parametrize(
    "changes",
    [
        {"count": 0},
        {"count": 2**32},
        {"proof": [word(1)] * 33},
        {"proof": ["0x00"]},
        {"root": word(1).upper()},
        {"block_number": -1},
    ],
)
def test_an_anchoring_that_makes_no_sense_is_none(changes):
    value = receipt_file().to_json()
    with pytest.raises(RecordError):
        ReceiptFile.from_json({**value, "anchoring": {**value["anchoring"], **changes}})


@pytest.mark.parametrize("seed", ["", "0x00", word(1)[:-2], 7, "0X" + "00" * 32])
def test_a_mask_seed_has_32_bytes(seed):
    with pytest.raises(RecordError):
        ReceiptFile.from_json({**receipt_file().to_json(), "mask_seed": seed})


@given(st.binary(max_size=200))
def test_bytes_that_are_no_receipt_end_in_our_error(data):
    with pytest.raises(RecordError):
        ReceiptFile.from_bytes(data)


def test_nesting_without_end_ends_in_our_error():
    for data in (b"[" * 10**6, b'{"card":' * 10**5 + b"}" * 10**5):
        with pytest.raises(RecordError):
            ReceiptFile.from_bytes(data)


def test_a_receipt_is_proven_to_be_in_its_batch_and_for_one_issuer():
    file = receipt_file()
    siblings = [bytes.fromhex(sibling[2:]) for sibling in file.anchoring.proof]
    leaf = receipt_leaf(SERVICE.address, file.receipt_digest)
    assert "0x" + root_from_proof(leaf, siblings).hex() == file.anchoring.root
    others = (
        receipt_leaf(REQUESTER.address, file.receipt_digest),
        receipt_leaf(SERVICE.address, word(6)),
    )
    for other in others:
        assert "0x" + root_from_proof(other, siblings).hex() != file.anchoring.root

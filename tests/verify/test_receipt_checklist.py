"""A receipt that holds, one that is not anchored, and a wrong answer that is convicted."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from memory_chain import word
from receipt_stage import (
    BIAS,
    ISSUER,
    RANGES,
    REQUESTER,
    SEED,
    SERVICE,
    STRANGER,
    WEIGHT,
    anchor,
    deployment,
    digest_of,
    final_chain,
    predict,
)
from tampering import leaf_at, leaves, mutants, tampered

from twopm_flower.errors import ChainUnavailable, RecordError, WrongChain
from twopm_flower.privacy.layout import Layout
from twopm_flower.privacy.linear_parameters import LinearParameters
from twopm_flower.records.canonical import canonical_bytes
from twopm_flower.records.digest import ZERO_DIGEST
from twopm_flower.records.fields import Record
from twopm_flower.records.inference import ReceiptFile
from twopm_flower.records.statements import sign
from twopm_flower.verify import chain_view

OTHER_WEIGHT = WEIGHT / 2
POLICIES = pytest.mark.parametrize(
    ("policy", "seed"), [("public", None), ("secret", SEED)], ids=["public", "secret"]
)


def failure(report):
    """Return the number of the step that fails, and what it says."""
    assert report.exit_code == 1
    return report.first_failure.number, report.first_failure.detail


def skipped(report):
    return [step.number for step in report.steps if step.status == "skipped"]


@POLICIES
@pytest.mark.parametrize(("rows", "batched"), [(1, False), (1, True), (7, True)])
@pytest.mark.parametrize("batch", [1, 2, 6])
def test_an_honest_receipt_holds_in_every_step(policy, seed, rows, batched, batch):
    report = predict(policy=policy, seed=seed, rows=rows, batched=batched, batch=batch).verify()
    assert [step.status for step in report.steps] == ["passed"] * 9, report.first_failure
    assert (report.exit_code, report.level, report.anchored) == (0, "redone", True)
    assert not report.fault
    assert (report.service, report.requester) == (SERVICE.address, REQUESTER.address)
    assert (report.rows, report.price) == (rows, 7)
    assert report.to_json()["exit_code"] == 0


def test_an_unanchored_receipt_is_told_apart_from_an_anchored_one():
    prediction = predict(anchored=False)
    report = prediction.verify()
    assert (report.exit_code, report.anchored, skipped(report)) == (2, False, [8, 9])
    assert any("Not anchored" in note for note in report.notes)
    assert not any("Not anchored" in note for note in predict().verify().notes)


def test_without_a_chain_nothing_is_anchored_whatever_the_file_says():
    prediction = predict()
    report = prediction.verify(chain=None)
    assert (report.exit_code, report.anchored, skipped(report)) == (2, False, [7, 9])
    assert any("Not anchored" in note for note in report.notes)

    class Silent(type(prediction.chain)):
        def check(self):
            raise ChainUnavailable("nobody answers")

    silent = Silent(**vars(prediction.chain))
    assert prediction.verify(chain=silent).exit_code == 2


def test_what_is_not_at_hand_is_not_checked_and_the_report_says_so():
    prediction = predict(policy="secret")
    report = prediction.verify(arrays=None, request=None)
    assert (report.exit_code, report.level, skipped(report)) == (0, "signed", [4, 6])
    report = prediction.verify(response=None, arrays=None)
    assert (report.level, skipped(report)) == ("signed", [5, 6])
    report = prediction.verify(arrays=None)
    assert (report.level, skipped(report)) == ("compared", [6])
    report = prediction.verify()
    assert (report.level, skipped(report)) == ("compared", [6])
    assert "mask seed" in report.steps[5].detail
    assert len(prediction.verify(arrays=None, request=None).notes) == 3


# Which step may notice a change below which path; 0 is a file that does not load.
STEPS_BY_PATH = {
    "format": {0},
    "card/format": {0},
    "card/deployment": {2},
    "card/parameters": {1},
    "card/parameters_id": {1},
    "card/weights": {1},
    "card/service": {2},
    "card": {1, 2},
    "request/node": {3},
    "request": {3},
    "receipt": {2},
    "mask_seed": {2},
    "anchoring/issuer": {8},
    "anchoring/root": {8},
    "anchoring/proof": {8},
    "anchoring/count": {8, 9},
    "anchoring": {9},
}


def expected_steps(path):
    """Return what the longest prefix of a path says."""
    names = [str(step) for step in path]
    for length in range(len(names), 0, -1):
        steps = STEPS_BY_PATH.get("/".join(names[:length]))
        if steps is not None:
            return steps
    raise AssertionError(path)


@POLICIES
def test_a_change_in_any_field_is_noticed_by_its_step(policy, seed):
    prediction = predict(policy=policy, seed=seed)
    value = prediction.file.to_json()
    paths = list(leaves(value))
    assert len(paths) > 60
    for path in paths:
        for mutant in mutants(leaf_at(value, path)):
            changed = canonical_bytes(tampered(value, path, mutant))
            try:
                file = ReceiptFile.from_bytes(changed)
            except RecordError:
                continue
            # The chain is asked, so that a step cannot hide behind one that is skipped.
            number, _ = failure(prediction.verify(file=file))
            assert number in expected_steps(path), (path, mutant)


@pytest.mark.parametrize("batched", [False, True])
def test_a_change_in_any_byte_of_request_or_response_is_noticed(batched):
    prediction = predict(rows=1, batched=batched)
    rng = np.random.default_rng(5)
    for name, step in (("request", 4), ("response", 5)):
        frame = getattr(prediction, name)
        places = {0, len(frame) - 1, *rng.integers(0, len(frame), 20).tolist()}
        for place in places:
            changed = bytearray(frame)
            changed[place] ^= 1 << int(rng.integers(8))
            report = prediction.verify(**{name: bytes(changed)})
            assert failure(report)[0] == step, (name, place)
        for changed in (b"", frame[:-1], frame + b"\0", frame + frame, bytes(len(frame))):
            assert failure(prediction.verify(**{name: changed}))[0] == step


def test_a_request_or_a_response_of_another_prediction_is_refused():
    prediction, other = predict(), predict(rows=7, batched=True)
    assert failure(prediction.verify(request=other.request))[0] == 4
    assert failure(prediction.verify(response=other.response))[0] == 5
    assert failure(prediction.verify(request=prediction.response))[0] == 4


SIGNED_LIES = [
    ({"card": {"parameters_id": word("other")}}, 1, "parameters_id"),
    ({"card": {"weights": "secret"}}, 1, "weights"),
    ({"card": {"features": ("a", "b"), "ranges": (1.0, 1.0)}}, 1, "features"),
    ({"card": {"classes": ("one",)}}, 1, "classes"),
    ({"card": {"link": "identity"}}, 1, "classes"),
    ({"card": {"link": "softmax"}}, 1, "classes"),
    ({"receipt": {"card_digest": word("other")}}, 2, "card_digest"),
    ({"receipt": {"task_id": word("other")}}, 2, "task_id"),
    ({"receipt": {"model_digest": word("other")}}, 2, "model_digest"),
    ({"receipt": {"parameters_id": word("other")}}, 2, "parameters_id"),
    ({"receipt": {"issuer": STRANGER.address}}, 2, "issuer"),
    ({"receipt": {"price": 8}}, 2, "price"),
    ({"receipt": {"mask_commitment": word("other")}}, 2, "mask commitment"),
    ({"signers": (REQUESTER, STRANGER)}, 2, "signer"),
    ({"receipt": {"requester": STRANGER.address}}, 3, "requester"),
    ({"receipt": {"request_digest": word("other")}}, 3, "request_digest"),
    ({"receipt": {"rows": 2}}, 3, "rows"),
    ({"request": {"service": STRANGER.address}}, 3, "service"),
    ({"request": {"issued_at": 1_790_000_602}}, 3, "-601 s"),
    ({"request": {"issued_at": 1_789_999_400}}, 3, "+601 s"),
    ({"request": {"rows": 2}}, 4, "rows"),
    ({"request": {"request_digest": word("other")}}, 4, "digest"),
    ({"receipt": {"response_digest": word("other")}}, 5, "digest"),
    ({"card": {"task_id": word("other")}}, 7, "TaskUnknown"),
]


@pytest.mark.parametrize(("lie", "step", "says"), SIGNED_LIES)
def test_a_signed_lie_is_noticed_by_its_step(lie, step, says):
    number, detail = failure(predict(**lie).verify())
    assert (number, says in detail) == (step, True), detail


def test_more_rows_than_the_card_allows_are_no_honest_receipt():
    number, detail = failure(predict(rows=7, batched=True, card={"max_rows": 6}).verify())
    assert number == 3
    assert "7 rows" in detail


@pytest.mark.parametrize("anchored", [True, False])
@POLICIES
@pytest.mark.parametrize("batched", [True, False])
def test_a_wrong_answer_is_convicted_by_the_services_own_signature(policy, seed, anchored, batched):
    wrong = predict(
        policy=policy, seed=seed, batched=batched, answered_by=OTHER_WEIGHT, anchored=anchored
    )
    for chain in (wrong.chain, None):
        report = wrong.verify(chain=chain, response=None)
        number, detail = failure(report)
        assert (number, report.fault, report.to_json()["fault"]) == (6, True, True)
        assert "PROVABLE FAULT" in detail
        assert SERVICE.address in detail
        assert "Publish the receipt file, the request and the model" in detail
    # Without the weights nobody can tell, and a lie about anchoring hides nothing.
    assert not wrong.verify(arrays=None).fault
    anchoring = predict().file.anchoring
    assert wrong.with_file(anchoring=anchoring).verify().fault


def test_parameters_that_the_model_does_not_fit_are_a_fault():
    small = LinearParameters.derive(WEIGHT / 64, BIAS, np.array(RANGES), "public")
    number, detail = failure(predict(parameters=small, answered_by=WEIGHT / 64).verify())
    assert number == 6
    assert "PROVABLE FAULT" in detail
    assert "does not fit" in detail


def test_an_answer_with_another_mask_than_the_one_committed_to_is_a_fault():
    report = predict(policy="secret", seed=SEED, masked_by=bytes(32)).verify()
    assert (failure(report)[0], report.fault) == (6, True)


def test_another_models_weights_prove_nothing():
    prediction = predict()
    for arrays, says in (
        ({"weight": OTHER_WEIGHT, "bias": BIAS}, "says nothing about the service"),
        ({"weight": WEIGHT}, "not that of the receipt"),
        ({"weight": WEIGHT, "bias": BIAS, "more": BIAS}, "not that of the receipt"),
        ({"weight": WEIGHT[0], "bias": BIAS}, "not that of the receipt"),
        ({"weight": WEIGHT * np.nan, "bias": BIAS}, "not that of the receipt"),
        ({"weight": WEIGHT.astype(np.int64), "bias": BIAS}, "not that of the receipt"),
        ({}, "not that of the receipt"),
    ):
        report = prediction.verify(arrays=arrays)
        number, detail = failure(report)
        assert (number, report.fault, says in detail) == (6, False, True), detail


@pytest.mark.parametrize(
    "arrays",
    [
        (("weight", (1, 3)),),
        (("weight", (3,)), ("bias", (1,))),
        (("weight", (1, 3)), ("bias", (3,))),
        (("weight", (1, 3)), ("bias", (1,)), ("more", (1,))),
    ],
)
def test_a_layout_that_no_linear_model_has_proves_nothing(arrays):
    report = predict(card={"layout": Layout(arrays).to_dict()}).verify()
    number, detail = failure(report)
    assert (number, report.fault) == (6, False)
    assert "not that of a linear model" in detail


def test_a_mask_seed_that_the_receipt_does_not_commit_to_is_refused():
    number, detail = failure(predict(policy="secret", seed=bytes(32)).verify())
    assert number == 2
    assert "mask seed" in detail
    assert failure(predict(policy="public", seed=SEED).verify())[0] == 2
    unmasked = predict(policy="secret", receipt={"mask_commitment": ZERO_DIGEST})
    assert failure(unmasked.verify())[0] == 2


def test_a_batch_of_another_issuer_count_or_root_is_refused():
    # A proof is as long in a batch of six as in one of five.
    prediction = predict(batch=5)
    anchoring = prediction.file.anchoring
    chain = prediction.chain
    for change, step in (
        ({"issuer": STRANGER.address}, 8),
        ({"root": word("other")}, 8),
        ({"count": 2**20}, 8),
        ({"proof": ()}, 8),
        ({"proof": (*anchoring.proof, word("more"))}, 8),
        ({"count": 6}, 9),
        ({"block_number": anchoring.block_number + 1}, 9),
        ({"transaction_hash": word("other")}, 9),
    ):
        changed = anchoring.model_copy(update=change)
        chain.anchor(changed.issuer, changed.root, 5) if step == 8 else None
        number, detail = failure(prediction.with_file(anchoring=changed).verify())
        assert number == step, (change, detail)


def test_a_batch_that_another_account_anchored_is_not_the_issuers():
    prediction = predict()
    anchoring = prediction.file.anchoring
    empty = final_chain(deployment(), digest_of(WEIGHT, BIAS))
    empty.anchor(STRANGER.address, anchoring.root, anchoring.count)
    number, detail = failure(prediction.verify(chain=empty))
    assert number == 9
    assert ISSUER.address in detail


def test_a_batch_of_somebody_else_that_has_the_receipt_is_not_the_issuers():
    prediction = predict(anchored=False)
    anchoring = anchor(prediction.chain, prediction.file, issuer=STRANGER.address)
    number, detail = failure(prediction.with_file(anchoring=anchoring).verify())
    assert number == 8
    assert "issuer" in detail


@pytest.mark.parametrize(
    "name", [name for name, kind in vars(chain_view.AnchorView).items() if type(kind) is property]
)
def test_a_change_in_any_field_of_an_anchor_on_chain_is_noticed(name):
    prediction = predict()
    (place, honest), *_ = prediction.chain.anchors.items()
    value = getattr(honest, name)
    other = value + 1 if isinstance(value, int) else word("other")
    prediction.chain.anchors[place] = replace(honest, **{name: other})
    assert failure(prediction.verify())[0] == 9


def test_a_model_that_is_not_the_outcome_of_its_task_is_refused():
    for change in ({"state": "running"}, {"model_digest": None}, {"model_digest": word("other")}):
        prediction = predict()
        prediction.chain.state = replace(prediction.chain.state, **change)
        assert failure(prediction.verify())[0] == 7


def test_another_chain_is_refused():
    prediction = predict()
    for field in type(deployment()).model_fields:
        value = getattr(deployment(), field)
        other = value + 1 if isinstance(value, int) else "0x" + "00" * 19 + "99"
        pinned = deployment().model_copy(update={field: other})
        prediction.chain.pinned = pinned
        assert failure(prediction.verify())[0] == 7

    class Elsewhere(type(prediction.chain)):
        def check(self):
            raise WrongChain("another genesis")

    elsewhere = Elsewhere(**vars(prediction.chain))
    assert failure(prediction.verify(chain=elsewhere))[0] == 7


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)


@settings(max_examples=25)
@given(name=st.sampled_from(["parameters", "layout"]), data=st.data())
def test_whatever_a_service_signs_in_its_card_ends_in_a_report(name, data):
    honest = getattr(predict().file.card, name)
    key = data.draw(st.sampled_from(sorted(honest)))
    changed = data.draw(
        JSON.map(lambda inner: {**honest, key: inner}) | st.dictionaries(st.text(), JSON)
    )
    try:
        prediction = predict(card={name: changed})
    except RecordError:
        return
    same = canonical_bytes(changed) == canonical_bytes(honest)
    assert prediction.verify().exit_code == (0 if same else 1)


def test_a_record_changed_in_memory_has_another_encoding():
    prediction = predict()
    file = prediction.file.model_copy(update={"mask_seed": "0x"})
    assert failure(prediction.verify(file=file))[0] == 1
    assert isinstance(prediction.file, Record)
    # Signed again by the service for another registry, it is no receipt of this one.
    elsewhere = deployment().model_copy(update={"receipt_registry": STRANGER.address})
    signed = sign(prediction.file.receipt.statement, SERVICE, elsewhere.receipt_domain)
    assert failure(prediction.with_file(receipt=signed).verify())[0] == 2

"""What a service does with the bytes of one request, honest ones and others."""

import dataclasses
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from lying_service import DEPLOYMENT, ISSUER, SERVICE, small_service, word
from service_process import desk_of
from service_requests import ANOTHER, NOW, REQUESTER, ask, plain_scores

from twopm_flower.errors import InferenceRefused
from twopm_flower.inference.desk import BudgetUsed
from twopm_flower.inference.envelope import CLOCK_TOLERANCE_S
from twopm_flower.privacy import linear_numba
from twopm_flower.privacy.linear_frame import request_digest, response_digest
from twopm_flower.privacy.linear_service import mask_commitment, mask_seed_for
from twopm_flower.records.digest import ZERO_DIGEST
from twopm_flower.records.inference import QueryBudget

MASK_KEY = b"\x71" * 32
BUDGET = QueryBudget(rows=10, period_s=3600)


class Clock:
    """A time that a test sets."""

    def __init__(self):
        self.now = float(NOW)

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def stage(tmp_path, clock):
    """Make a desk, and the model that it serves."""
    stores = []

    def make(policy="public", budget=None, **changes):
        service = small_service(policy, card_changes={"query_budget": budget})
        if policy == "secret":
            changes.setdefault("mask_key", MASK_KEY)
        desk = desk_of(service, tmp_path, now=clock, **changes)
        stores.append(desk.store)
        return service, desk

    yield make
    for store in stores:
        store.close()


def refused(desk, body):
    """Return the status of a refusal, and what it says; nothing is kept of the request."""
    before = desk.store.without_batch()
    with pytest.raises(InferenceRefused) as caught:
        desk.answer(body)
    assert desk.store.without_batch() == before
    return caught.value.status, caught.value.message


@pytest.mark.parametrize("rows", [1, 9])
@pytest.mark.parametrize("policy", ["public", "secret"])
def test_encrypted_rows_are_answered_with_the_models_scores_and_a_receipt(stage, policy, rows):
    service, desk = stage(policy, BUDGET if policy == "secret" else None)
    asked = ask(service, rows)
    answered = desk.answer(asked.body())
    opened = asked.opened(answered.body)
    assert answered.rows == rows
    np.testing.assert_allclose(opened.scores, plain_scores(service, rows), atol=1e-3)
    opened.receipt.check(DEPLOYMENT.receipt_domain)
    seed = mask_seed_for(MASK_KEY, request_digest(asked.frame)) if policy == "secret" else None
    commitment = mask_commitment(seed)
    assert (commitment == ZERO_DIGEST) is (policy == "public")
    assert opened.receipt.node == SERVICE.address
    assert opened.receipt.statement.model_dump() == {
        "task_id": service.card.task_id,
        "card_digest": service.card.digest,
        "model_digest": service.card.model_digest,
        "parameters_id": service.card.parameters_id,
        "requester": REQUESTER.address,
        "request_digest": request_digest(asked.frame),
        "response_digest": response_digest(opened.response),
        "mask_commitment": commitment,
        "issuer": ISSUER.address,
        "rows": rows,
        "price": 0,
        "issued_at": NOW,
    }
    assert [digest for _, digest in desk.store.without_batch()] == [
        "0x" + opened.receipt.statement.signing_hash(DEPLOYMENT.receipt_domain).hex()
    ]


def test_both_ways_to_compute_give_the_same_bytes(stage):
    service, desk = stage("secret", BUDGET)
    asked = ask(service, 5)
    fast = dataclasses.replace(desk, ring=linear_numba)
    assert fast.answer(asked.body()).body == desk.answer(asked.body()).body


@pytest.mark.parametrize("policy", ["public", "secret"])
def test_a_repeated_request_gets_the_same_bytes_and_costs_nothing(stage, clock, policy):
    service, desk = stage(policy, BUDGET)
    asked = ask(service, 9)
    first = desk.answer(asked.body())
    clock.now += 20
    assert desk.answer(asked.body()).body == first.body
    assert desk.answer(asked.body(issued_at=NOW + 20)).body == first.body
    assert len(desk.store.without_batch()) == 1
    assert desk.answer(ask(service, 1).body()).rows == 1


def test_masks_differ_from_request_to_request_and_from_service_to_service(stage):
    service, desk = stage("secret", BUDGET)
    asked, other = ask(service, 1), ask(service, 1)
    one = asked.opened(desk.answer(asked.body()).body)
    two = other.opened(desk.answer(other.body()).body)
    assert one.receipt.statement.mask_commitment != two.receipt.statement.mask_commitment
    _, elsewhere = stage("secret", BUDGET, mask_key=b"\x72" * 32)
    unmasked = asked.opened(elsewhere.answer(asked.body(ANOTHER)).body)
    assert unmasked.response != one.response
    np.testing.assert_allclose(unmasked.scores, one.scores, atol=1e-9)


def test_two_requesters_may_send_the_same_rows_and_each_gets_a_receipt_of_its_own(stage):
    service, desk = stage(budget=BUDGET)
    asked = ask(service, 9)
    receipts = [
        asked.opened(desk.answer(asked.body(who)).body).receipt for who in (REQUESTER, ANOTHER)
    ]
    assert [receipt.statement.requester for receipt in receipts] == [
        REQUESTER.address,
        ANOTHER.address,
    ]
    assert len(desk.store.without_batch()) == 2


@pytest.mark.parametrize(
    "changes",
    [
        {"service": ANOTHER.address},
        {"model_digest": word("another model")},
        {"parameters_id": word("other parameters")},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_a_request_for_something_else_is_told_what_is_served_here(stage, changes):
    service, desk = stage()
    status, message = refused(desk, ask(service).body(**changes))
    ((name, sent),) = changes.items()
    assert status == 404
    assert sent in message
    assert getattr(service.card, name) in message


def test_a_frame_for_another_model_is_refused_though_what_is_signed_is_right(stage):
    service, desk = stage()
    other = small_service(card_changes={"model_digest": word("another model")})
    asked = ask(other)
    status, _ = refused(desk, asked.body(model_digest=service.card.model_digest))
    assert status == 404


@pytest.mark.parametrize("late_s", [-CLOCK_TOLERANCE_S - 1, CLOCK_TOLERANCE_S + 1, 10**9])
def test_a_request_of_another_time_is_refused(stage, clock, late_s):
    service, desk = stage()
    asked = ask(service)
    clock.now += late_s
    status, message = refused(desk, asked.body())
    assert (status, f"{-late_s:+d} s" in message) == (409, True)


@pytest.mark.parametrize("late_s", [-CLOCK_TOLERANCE_S, CLOCK_TOLERANCE_S])
def test_a_clock_may_be_a_little_wrong(stage, clock, late_s):
    service, desk = stage()
    asked = ask(service)
    clock.now += late_s
    assert desk.answer(asked.body()).rows == 1


@pytest.mark.parametrize(
    "spoil",
    [
        lambda body: b"",
        lambda body: bytes(100),
        lambda body: body[:-1],
        lambda body: body + b"\0",
        lambda body: body[:4] + b"\xff\xff\xff\xff" + body[8:],
        lambda body: body.replace(b'"rows":1', b'"rows":-1'),
        lambda body: body.replace(b'"rows":1', b'"rows": 1'),
        lambda body: b"TPO1" + body[4:],
    ],
)
def test_what_is_no_request_is_refused(stage, spoil):
    service, desk = stage()
    assert refused(desk, spoil(ask(service).body()))[0] == 400


@pytest.mark.parametrize(
    "changes", [{"request_digest": word("other rows")}, {"rows": 3}], ids=["digest", "rows"]
)
def test_what_is_signed_has_to_be_about_the_rows_that_came(stage, changes):
    service, desk = stage()
    status, message = refused(desk, ask(service, 2).body(**changes))
    assert status == 400
    assert "other encrypted rows" in message


def test_more_rows_than_a_request_may_have_are_refused(tmp_path, clock):
    service = small_service(card_changes={"max_rows": 4})
    desk = desk_of(service, tmp_path, now=clock)
    assert desk.answer(ask(service, 4).body()).rows == 4
    assert refused(desk, ask(service, 5).body())[0] == 400
    desk.store.close()


def test_nobody_can_sign_for_somebody_else(stage):
    service, desk = stage()
    body = ask(service).body().replace(REQUESTER.address.encode(), ANOTHER.address.encode())
    status, message = refused(desk, body)
    assert status == 401
    assert ANOTHER.address in message


def test_a_requester_that_is_not_on_the_list_is_refused_and_the_others_are_not(stage):
    service, desk = stage(allowed=frozenset({REQUESTER.address}))
    asked = ask(service)
    status, message = refused(desk, asked.body(ANOTHER))
    assert status == 403
    assert ANOTHER.address in message
    assert desk.answer(asked.body()).rows == 1


def test_whoever_used_up_its_budget_is_told_when_to_come_again_and_others_are_answered(
    stage, clock
):
    service, desk = stage(budget=BUDGET)
    desk.answer(ask(service, 4).body())
    clock.now += 100
    desk.answer(ask(service, 6).body(issued_at=NOW + 100))
    clock.now += 100
    too_much = ask(service, 5)
    with pytest.raises(BudgetUsed) as caught:
        desk.answer(too_much.body(issued_at=NOW + 200))
    assert caught.value.status == 429
    # The four rows are given back first, and four are not enough.
    assert caught.value.retry_after_s == BUDGET.period_s - 100
    assert str(BUDGET.rows) in caught.value.message
    with pytest.raises(BudgetUsed) as caught:
        desk.answer(ask(service, 4).body(issued_at=NOW + 200))
    assert caught.value.retry_after_s == BUDGET.period_s - 200
    assert desk.answer(too_much.body(ANOTHER, issued_at=NOW + 200)).rows == 5
    clock.now = NOW + BUDGET.period_s + 100.0
    assert desk.answer(too_much.body(issued_at=int(clock.now))).rows == 5


def test_a_budget_holds_when_a_requester_asks_many_times_at_once(stage):
    service, desk = stage(budget=BUDGET)
    bodies = [ask(service, 3).body() for _ in range(8)]

    def rows(body):
        try:
            return desk.answer(body).rows
        except BudgetUsed:
            return 0

    with ThreadPoolExecutor(8) as threads:
        assert sum(threads.map(rows, bodies)) == 9
    assert len(desk.store.without_batch()) == 3

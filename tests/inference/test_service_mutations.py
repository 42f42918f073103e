"""Requests that are nearly right: each is refused with a reason, or answered as any other."""

import random
from collections import Counter

import pytest
from lying_service import DEPLOYMENT, small_service
from mutators import FRAME, JSON, Mutator
from service_process import desk_of
from service_requests import NOW, REQUESTER, ask

from twopm_flower.errors import InferenceRefused
from twopm_flower.inference.envelope import pack_request, unpack_answer, unpack_request
from twopm_flower.privacy import linear_numba
from twopm_flower.privacy.linear_frame import parse_request, request_digest
from twopm_flower.privacy.linear_service import answer, mask_seed_for
from twopm_flower.records.inference import QueryBudget
from twopm_flower.records.statements import sign

STATUSES = {200, 400, 401, 404, 409, 429}
MASK_KEY = b"\x71" * 32


class Requests:
    """Changed requests: of each third, the whole body, what is signed, or the frame is changed.

    A changed frame is signed as if it were right, so that it is refused for what it is.
    """

    def __init__(self, service, seed):
        asked = [ask(service), ask(service, 2), ask(service, 9), ask(service, preset="batch")]
        self._bodies = [one.body() for one in asked]
        self._statements = [unpack_request(body)[0].to_bytes() for body in self._bodies]
        self._asked = asked
        self._source = random.Random(seed)
        self._frames, self._words = Mutator(seed, FRAME), Mutator(seed + 1, JSON)

    def draw(self):
        kind = self._source.random()
        if kind < 0.3:
            return self._frames.mutate(self._bodies)
        one = self._source.choice(self._asked)
        if kind < 0.6:
            statement = self._words.mutate(self._statements)
            return b"TPI1" + len(statement).to_bytes(4, "little") + statement + one.frame
        frame = self._frames.mutate([each.frame for each in self._asked])
        said = one.statement.model_copy(update={"request_digest": request_digest(frame)})
        return pack_request(sign(said, REQUESTER, DEPLOYMENT.receipt_domain), frame)


def tried(policy, folder, count, seed):
    """Send so many; return how many had each status."""
    service = small_service(
        policy, card_changes={"query_budget": QueryBudget(rows=300, period_s=60)}
    )
    desk = desk_of(
        service,
        folder,
        now=lambda: float(NOW),
        ring=linear_numba,
        mask_key=MASK_KEY if policy == "secret" else None,
    )
    requests, outcomes = Requests(service, seed), Counter()
    for _ in range(count):
        body = requests.draw()
        try:
            answered = desk.answer(body)
        except InferenceRefused as error:
            outcomes[error.status if error.message else "without a reason"] += 1
        except Exception as error:
            raise AssertionError(f"{error!r}: bytes.fromhex({body.hex()!r})") from error
        else:
            _check_answer(service, body, answered)
            outcomes[200] += 1
    assert len(desk.store.without_batch()) <= outcomes[200]
    desk.store.close()
    assert set(outcomes) <= STATUSES
    return outcomes


def _check_answer(service, body, answered):
    signed, frame = unpack_request(body)
    receipt, _, response = unpack_answer(answered.body)
    receipt.check(DEPLOYMENT.receipt_domain)
    assert receipt.statement.request_digest == request_digest(frame)
    assert receipt.statement.requester == signed.node
    request = parse_request(
        frame, service.parameters, model_digest=service.card.model_digest, max_rows=1000
    )
    assert request.rows == signed.statement.rows == answered.rows
    seed = mask_seed_for(MASK_KEY, request.digest) if service.policy == "secret" else None
    assert response == answer(request, service.prepared, seed)


@pytest.mark.parametrize("policy", ["public", "secret"])
def test_changed_requests_are_refused_with_a_reason_or_answered(tmp_path, policy):
    outcomes = tried(policy, tmp_path, 1_000, seed=26)
    assert set(outcomes) >= {200, 400, 401, 404}


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["public", "secret"])
def test_many_changed_requests_are_refused_with_a_reason_or_answered(tmp_path, policy):
    assert set(tried(policy, tmp_path, 5_000, seed=27)) >= {200, 400, 401, 404}


@pytest.mark.full
@pytest.mark.parametrize("policy", ["public", "secret"])
def test_a_hundred_thousand_changed_requests(tmp_path, policy):
    assert set(tried(policy, tmp_path, 50_000, seed=28)) >= {200, 400, 401, 404}

"""The client against the real service, in this process."""

import asyncio
import sqlite3
from contextlib import closing

import httpx
import numpy as np
import pytest
from lying_service import small_service
from service_process import desk_of

from twopm_flower.datasets.synthetic import synthetic_students
from twopm_flower.errors import InferenceRefused, InferenceUnavailable
from twopm_flower.inference.agreed_model import ClientPolicy
from twopm_flower.inference.client import PrivateInferenceClient
from twopm_flower.inference.client_async import AsyncPrivateInferenceClient
from twopm_flower.inference.service import create_app
from twopm_flower.records.inference import QueryBudget

STUDENTS = synthetic_students("por", 12)


class Forgetful(httpx.AsyncBaseTransport):
    """Brings each request to an application, and loses some answers on the way back."""

    def __init__(self, app, lost=0):
        self.inner = httpx.ASGITransport(app)
        self.lost = lost

    async def handle_async_request(self, request):
        response = await self.inner.handle_async_request(request)
        if request.method == "POST" and self.lost:
            self.lost -= 1
            raise httpx.ReadError("the connection was reset")
        return response


@pytest.fixture
def stage(tmp_path):
    """Make the application of a service with a model of made-up students."""

    def make(**changes):
        service = small_service(card_changes=changes.pop("card", {}))
        desk = desk_of(service, tmp_path, **changes)
        return service, create_app(desk)

    return make


def client_of(app, home, *, lost=0, retries=2):
    return PrivateInferenceClient(
        "http://127.0.0.1:1",
        home=home,
        policy=ClientPolicy(retries=retries),
        transport=Forgetful(app, lost),
    )


def plain(service, students):
    logits = service.encoder.encode_features(students) @ service.weight.T + service.bias
    return 1 / (1 + np.exp(-logits[:, 0].astype(np.float64)))


def receipts_in(folder):
    with closing(sqlite3.connect(folder / "receipts.sqlite")) as database:
        return database.execute("SELECT COUNT(*) FROM receipts").fetchone()[0]


def test_one_student_and_many_get_the_probabilities_of_the_model(stage, tmp_path):
    service, app = stage()
    with client_of(app, tmp_path) as client:
        assert client.card() == service.card
        for students in (STUDENTS, STUDENTS.tail(1)):
            np.testing.assert_allclose(
                client.predict(students)["probability"], plain(service, students), atol=1e-3
            )
        assert [receipt.anchoring for receipt in client.receipts()] == [None, None]


def test_several_requests_at_once_are_answered_each_with_its_own(stage, tmp_path):
    service, app = stage()

    async def ask():
        async with AsyncPrivateInferenceClient(
            "http://127.0.0.1:1", home=tmp_path, transport=httpx.ASGITransport(app)
        ) as client:
            rows = [STUDENTS.iloc[[number]] for number in range(len(STUDENTS))]
            return await asyncio.gather(*(client.predict(row) for row in rows))

    answers = asyncio.run(ask())
    found = [answer["probability"].item() for answer in answers]
    np.testing.assert_allclose(found, plain(service, STUDENTS), atol=1e-3)


def test_an_answer_that_got_lost_is_given_again_under_the_same_receipt(stage, tmp_path):
    budget = QueryBudget(rows=12, period_s=86_400)
    service, app = stage(card={"query_budget": budget})
    with client_of(app, tmp_path, lost=2) as client:
        np.testing.assert_allclose(
            client.predict(STUDENTS)["probability"], plain(service, STUDENTS), atol=1e-3
        )
        assert receipts_in(tmp_path) == 1
        with pytest.raises(InferenceUnavailable, match="429") as caught:
            client.predict(STUDENTS.head(1))
    assert "Try again in" in caught.value.hint


def test_whoever_is_not_on_the_list_is_told_so(stage, tmp_path):
    _, app = stage(allowed=frozenset())
    with client_of(app, tmp_path) as client, pytest.raises(InferenceRefused) as caught:
        client.predict(STUDENTS)
    assert caught.value.status == 403
    assert client.address in caught.value.message


def test_a_clock_that_is_wrong_is_noticed(stage, tmp_path):
    _, app = stage(now=lambda: 1_700_000_000.0)
    with client_of(app, tmp_path) as client, pytest.raises(InferenceRefused) as caught:
        client.predict(STUDENTS)
    assert caught.value.status == 409

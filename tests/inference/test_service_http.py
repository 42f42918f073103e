"""The service over HTTP, in this process: statuses, limits, words, and what is kept back."""

import asyncio
import dataclasses
import json
import threading
from contextlib import asynccontextmanager

import httpx
import numpy as np
import pytest
import schemathesis
from hypothesis import given, settings
from lying_service import DEPLOYMENT, ISSUER, small_service
from safetensors.numpy import load
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)
from service_process import desk_of
from service_requests import ANOTHER, NOW, REQUESTER, ask, plain_scores

from twopm_flower.inference.anchoring import Anchorer
from twopm_flower.inference.desk import Desk
from twopm_flower.inference.service import Limits, create_app, most_request_bytes
from twopm_flower.records.inference import ModelCard, QueryBudget
from twopm_flower.records.merkle import receipt_leaf, root_from_proof

OCTETS = {"Content-Type": "application/octet-stream"}
BUDGET = QueryBudget(rows=9, period_s=3600)
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    unsupported_method,
]


class FakeAnchor:
    transaction_hash = "0x" + "ab" * 32
    block_number = 77


class FakeChain:
    def anchor_receipts(self, root, count):
        return FakeAnchor()


@pytest.fixture
def stage(tmp_path):
    """Make a service, its desk, and the limits that it is served with."""
    desks = []

    def make(policy="public", card=None, limits=None, **changes):
        service = small_service(policy, card_changes=card or {})
        if policy == "secret":
            changes["mask_key"] = b"\x71" * 32
        desk = desk_of(service, tmp_path, now=lambda: float(NOW), **changes)
        desks.append(desk)
        return service, desk, create_app(desk, limits)

    yield make
    for desk in desks:
        desk.store.close()


@asynccontextmanager
async def client_of(app):
    # A server keeps what an application raises to its log; so does this.
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
        yield client


def call(app, method, path, **options):
    async def once():
        async with client_of(app) as client:
            return await client.request(method, path, **options)

    return asyncio.run(once())


def post(app, body, headers=None):
    return call(app, "POST", "/v1/predictions", content=body, headers=OCTETS | (headers or {}))


def problem(response, status):
    """Check that a refusal is one as RFC 9457 asks for, and return it."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    said = response.json()
    assert said["status"] == status
    assert said["detail"]
    assert said["type"] == "about:blank"
    assert said.keys() <= {"type", "title", "status", "detail", "hint"}
    assert "Traceback" not in response.text
    return said


def test_a_prediction_is_answered_in_bytes(stage):
    service, _, app = stage()
    asked = ask(service, 3)
    response = post(app, asked.body())
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/octet-stream"
    opened = asked.opened(response.content)
    np.testing.assert_allclose(opened.scores, plain_scores(service, 3), atol=1e-3)


def test_every_refusal_is_a_problem_with_its_own_status(stage):
    service, _, app = stage(card={"max_rows": 1}, allowed=frozenset({REQUESTER.address}))
    asked = ask(service)
    forged = asked.body().replace(REQUESTER.address.encode(), ANOTHER.address.encode())
    long = bytes(most_request_bytes(service.parameters, 1) + 1)
    assert problem(post(app, b"nothing"), 400)
    assert problem(post(app, forged), 401)
    assert ANOTHER.address in problem(post(app, asked.body(ANOTHER)), 403)["detail"]
    assert "GET /v1/model" in problem(post(app, asked.body(service=ANOTHER.address)), 404)["hint"]
    assert problem(post(app, asked.body(issued_at=NOW - 1000)), 409)
    assert "1 row" in problem(post(app, long), 413)["hint"]
    assert "text/plain" in problem(post(app, b"", {"Content-Type": "text/plain"}), 415)["detail"]
    assert problem(call(app, "GET", "/v1/predictions"), 405)
    assert problem(call(app, "GET", "/v2/predictions"), 404)


def test_a_body_that_does_not_say_its_length_is_cut_off_all_the_same(stage):
    service, _, app = stage(card={"max_rows": 1})
    most = most_request_bytes(service.parameters, 1)
    taken = 0

    async def parts():
        nonlocal taken
        for _ in range(1000):
            taken += 65_536
            yield bytes(65_536)

    async def send():
        async with client_of(app) as client:
            return await client.post("/v1/predictions", content=parts(), headers=OCTETS)

    problem(asyncio.run(send()), 413)
    assert taken <= most + 2 * 65_536


@pytest.mark.parametrize("length", ["-1", "1e3", "9" * 40, "²"])
def test_a_length_that_cannot_be_is_refused(stage, length):
    _, _, app = stage()
    assert post(app, b"", {"Content-Length": length.encode("latin-1")}).status_code == 413


def test_a_body_that_does_not_come_is_not_waited_for_forever(stage):
    _, _, app = stage(limits=Limits(read_s=0.02))

    async def never():
        yield b"TPI1"
        await asyncio.Event().wait()

    async def send():
        async with client_of(app) as client:
            return await client.post("/v1/predictions", content=never(), headers=OCTETS)

    problem(asyncio.run(send()), 408)


def test_a_budget_that_is_used_up_is_refused_with_the_time_to_wait(stage):
    service, _, app = stage(card={"query_budget": BUDGET})
    assert post(app, ask(service, 9).body()).status_code == 200
    response = post(app, ask(service, 1).body())
    problem(response, 429)
    assert response.headers["retry-after"] == "3600"


class SlowDesk(Desk):
    """Answers when it is let."""

    def __init__(self, desk):
        super().__init__(
            **{f.name: getattr(desk, f.name) for f in dataclasses.fields(desk) if f.init}
        )
        object.__setattr__(self, "begun", threading.Event())
        object.__setattr__(self, "let", threading.Event())

    def answer(self, body):
        self.begun.set()
        self.let.wait(20)
        return super().answer(body)


async def begun(desk):
    await asyncio.to_thread(desk.begun.wait, 20)


def test_more_than_can_be_answered_is_told_to_come_again_while_health_is_told_at_once(stage):
    service, desk, _ = stage()
    slow = SlowDesk(desk)
    app = create_app(slow, Limits(in_flight=1, threads=1))
    asked = ask(service)

    async def crowd():
        async with client_of(app) as client:
            first = asyncio.create_task(
                client.post("/v1/predictions", content=asked.body(), headers=OCTETS)
            )
            await begun(slow)
            more = await client.post("/v1/predictions", content=asked.body(), headers=OCTETS)
            health = [(await client.get(path)).status_code for path in ("/healthz", "/readyz")]
            slow.let.set()
            return (await first).status_code, more, health

    answered, more, health = asyncio.run(crowd())
    assert answered == 200
    assert health == [200, 200]
    problem(more, 429)
    assert more.headers["retry-after"] == "1"


def test_an_answer_that_takes_too_long_may_be_asked_for_again(stage):
    service, desk, _ = stage()
    slow = SlowDesk(desk)
    app = create_app(slow, Limits(answer_s=0.02))
    body = ask(service).body()

    async def twice():
        async with client_of(app) as client:
            late = await client.post("/v1/predictions", content=body, headers=OCTETS)
            slow.let.set()
            return late, await client.get("/healthz")

    late, health = asyncio.run(twice())
    problem(late, 503)
    assert late.headers["retry-after"] == "1"
    assert health.status_code == 200
    assert post(create_app(desk), body).status_code == 200


def test_a_service_that_stops_finishes_what_it_has_begun_and_takes_no_more(stage):
    service, desk, _ = stage()
    slow = SlowDesk(desk)
    app = create_app(slow)
    body = ask(service).body()

    async def stop():
        async with client_of(app) as client:
            first = asyncio.create_task(
                client.post("/v1/predictions", content=body, headers=OCTETS)
            )
            await begun(slow)
            threading.Timer(0.05, slow.let.set).start()
            async with app.router.lifespan_context(app):
                pass  # which ends when all that was begun is answered
            refused = await client.post("/v1/predictions", content=body, headers=OCTETS)
            return await first, refused, await client.get("/readyz")

    first, refused, ready = asyncio.run(stop())
    assert first.status_code == 200
    problem(refused, 503)
    problem(ready, 503)
    assert refused.headers["retry-after"] == "1"


def test_what_goes_wrong_inside_is_told_to_the_log_only(stage, caplog):
    service, desk, _ = stage()

    class Failing(SlowDesk):
        def answer(self, body):
            raise ZeroDivisionError("secret-of-the-operator")

    response = post(create_app(Failing(desk)), ask(service).body())
    said = problem(response, 500)
    assert "secret-of-the-operator" not in response.text
    assert "ZeroDivisionError" not in response.text
    assert "log" in said["detail"]
    assert "secret-of-the-operator" in caplog.text


def test_the_card_is_given_in_its_canonical_form(stage):
    service, _, app = stage()
    response = call(app, "GET", "/v1/model")
    assert response.headers["content-type"] == "application/json"
    assert response.content == service.card.to_bytes()
    assert ModelCard.from_bytes(response.content) == service.card


def test_weights_are_given_where_they_are_public_only(stage):
    service, _, app = stage()
    shown = load(call(app, "GET", "/v1/model/weights").content)
    np.testing.assert_array_equal(shown["weight"], service.weight)
    np.testing.assert_array_equal(shown["bias"], service.bias)
    _, _, secret = stage("secret", card={"query_budget": BUDGET})
    response = call(secret, "GET", "/v1/model/weights")
    problem(response, 403)
    assert service.weight.tobytes() not in response.content


def test_a_receipt_is_pending_until_it_is_anchored_and_then_has_its_proof(stage):
    service, desk, app = stage()
    asked = [ask(service) for _ in range(5)]
    digests = []
    for one in asked:
        receipt = one.opened(post(app, one.body()).content).receipt
        digests.append("0x" + receipt.statement.signing_hash(DEPLOYMENT.receipt_domain).hex())
    pending = call(app, "GET", f"/v1/receipts/{digests[0]}")
    assert pending.json() == {"state": "pending", "anchoring": None}
    assert Anchorer(desk.store, FakeChain(), ISSUER.address).anchor() == 0
    for digest in digests:
        said = call(app, "GET", f"/v1/receipts/{digest}").json()
        proof = [bytes.fromhex(sibling[2:]) for sibling in said["anchoring"]["proof"]]
        root = root_from_proof(receipt_leaf(ISSUER.address, digest), proof)
        assert said["state"] == "anchored"
        assert said["anchoring"]["root"] == "0x" + root.hex()
        assert said["anchoring"]["count"] == 5
        assert said["anchoring"]["block_number"] == 77


@pytest.mark.parametrize("name", ["0x" + "00" * 32, "0x", "%00", "..%2f" * 9, "é" * 66])
def test_a_receipt_that_is_not_known_is_not_found(stage, name):
    _, _, app = stage()
    problem(call(app, "GET", f"/v1/receipts/{name}"), 404)


def test_figures_count_requests_by_status_rows_and_time(stage):
    service, _, app = stage()
    post(app, ask(service, 3).body())
    post(app, ask(service, 1).body())
    post(app, b"nothing")
    text = call(app, "GET", "/metrics").text
    assert 'twopm_inference_requests_total{status="200"} 2.0' in text
    assert 'twopm_inference_requests_total{status="400"} 1.0' in text
    assert "twopm_inference_rows_total 4.0" in text
    assert "twopm_inference_seconds_count 3.0" in text
    assert "twopm_inference_in_flight 0.0" in text


def test_the_document_names_every_status_that_occurs(stage):
    _, _, app = stage()
    document = call(app, "GET", "/openapi.json").json()
    told = document["paths"]["/v1/predictions"]["post"]["responses"]
    assert set(told) == {
        *("200", "400", "401", "403", "404", "408", "409", "413", "415", "429", "503")
    }
    assert set(document["paths"]["/readyz"]["get"]["responses"]) == {"200", "503"}
    assert {"200", "404"} <= set(document["paths"]["/v1/receipts/{digest}"]["get"]["responses"])
    assert json.dumps(document).count("422") == 0


def test_the_service_does_what_its_document_says_whatever_is_sent(stage):
    _, _, app = stage()
    document = schemathesis.openapi.from_asgi("/openapi.json", app)
    tried = set()

    for result in document.get_all_operations():
        operation = result.ok()

        @settings(max_examples=8, deadline=None, database=None)
        @given(case=operation.as_strategy())
        def conforms(case):
            response = case.call()
            case.validate_response(response, checks=CHECKS)
            tried.add((case.method, case.path))

        conforms()
    assert len(tried) == 7

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twopm_flower.errors import InferenceMismatch, InferenceRefused, InferenceUnavailable
from twopm_flower.inference.http_steps import (
    LONGEST_PAUSE_S,
    Answer,
    NoAnswer,
    Pause,
    Retries,
    Send,
    ask,
)

REQUEST = Send("POST", "/v1/predictions", 1000, b"the same bytes", "application/octet-stream")
NOW = 1_800_000_000.0
BUSY = Answer(429, b"", {"retry-after": "3"})
CUT_OFF = NoAnswer("connection reset")


def problem(status, **fields):
    return Answer(status, json.dumps(fields).encode(), {"content-type": "application/problem+json"})


def drive(*outcomes, retries=3):
    """Run a flow on outcomes given in advance; return its end, what it sent, how long it waited."""
    flow = ask(REQUEST, Retries(retries, lambda: NOW, lambda: 0.0))
    waiting, sent, waited = list(outcomes), [], []
    try:
        step = flow.send(None)
        while True:
            if isinstance(step, Pause):
                waited.append(step.seconds)
                step = flow.send(None)
            else:
                sent.append(step)
                step = flow.send(waiting.pop(0))
    except StopIteration as stop:
        return stop.value, sent, waited


def failure(kind, *outcomes, retries=3):
    with pytest.raises(kind) as caught:
        drive(*outcomes, retries=retries)
    return caught.value


def test_what_was_cut_off_or_put_off_is_sent_again_as_the_same_bytes():
    body, sent, waited = drive(CUT_OFF, BUSY, problem(503), Answer(200, b"done", {}))
    assert body == b"done"
    assert sent == [REQUEST] * 4
    assert waited == [0.1, 3.0, 0.4]


def test_a_service_is_given_up_after_the_agreed_number_of_tries():
    error = failure(InferenceUnavailable, CUT_OFF, CUT_OFF, CUT_OFF, retries=2)
    assert "asked 3 times: connection reset" in error.message
    assert "infer serve" in error.hint
    assert "asked once" in failure(InferenceUnavailable, CUT_OFF, retries=0).message


def test_a_used_up_budget_is_told_at_once_and_not_waited_for():
    later = Answer(429, problem(429, detail="1000 rows today").body, {"retry-after": "40000"})
    error = failure(InferenceUnavailable, later)
    assert error.hint == "Try again in 40000 s."
    named = Answer(
        429,
        problem(429, detail="1000 rows of this day are used up").body,
        {"retry-after": "40000", "content-type": "application/problem+json; charset=utf-8"},
    )
    assert "1000 rows of this day are used up" in failure(InferenceUnavailable, named).message


def test_a_date_to_come_back_at_is_understood():
    dated = Answer(503, b"", {"retry-after": "Fri, 15 Jan 2027 08:00:07 GMT"})
    assert drive(dated, Answer(200, b"", {}))[2] == [7.0]


@given(st.text(max_size=40) | st.integers().map(str))
def test_no_retry_after_makes_a_client_wait_for_long_or_fall_over(text):
    retries = Retries(1, lambda: NOW)
    pause = retries.pause_s(1, text)
    assert pause is None or 0 <= pause <= LONGEST_PAUSE_S * 1.1


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 413, 415, 500])
def test_a_refusal_is_told_in_the_services_words_and_not_tried_again(status):
    error = failure(InferenceRefused, problem(status, detail="not you", hint="Ask first."))
    assert error.status == status
    assert error.message == f"the service does not answer: not you (HTTP {status})"
    assert error.hint == "Ask first."


@pytest.mark.parametrize(
    "answer",
    [
        Answer(400, b"<html>" * 1000, {"content-type": "text/html"}),
        Answer(400, b"[" * 60_000, {"content-type": "application/problem+json"}),
        Answer(400, b"\xff\xfe", {"content-type": "application/problem+json"}),
        problem(400, detail={"no": "text"}, title=7),
        problem(400, detail=""),
    ],
)
def test_a_refusal_that_is_no_problem_document_is_still_a_refusal(answer):
    assert "it gives no reason" in failure(InferenceRefused, answer).message


def test_what_a_service_says_steers_no_terminal_and_fills_no_screen():
    error = failure(InferenceRefused, problem(400, detail="\x1b[2J" + "x" * 9000))
    assert "\x1b" not in error.message
    assert len(error.message) < 600


@pytest.mark.parametrize("status", [100, 201, 204, 301, 302, 307, 308, 399, 600, 999])
def test_anything_else_than_an_answer_or_a_refusal_is_an_alarm(status):
    error = failure(InferenceMismatch, Answer(status, b"", {"location": "http://evil.example/"}))
    assert f"HTTP {status}" in error.message
    assert "http://evil.example/" in error.message


def test_a_packed_answer_is_not_unpacked():
    packed = Answer(200, b"\x1f\x8b", {"content-encoding": "gzip"})
    assert "packed" in failure(InferenceMismatch, packed).message

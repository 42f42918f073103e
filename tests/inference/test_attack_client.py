"""What a service could learn from, or do to, a client by what it says on its card."""

import dataclasses

import httpx
import numpy as np
import pytest
from lying_service import small_service

from twopm_flower.datasets.synthetic import synthetic_students
from twopm_flower.errors import InferenceMismatch
from twopm_flower.inference import asking
from twopm_flower.inference.agreed_model import ClientPolicy
from twopm_flower.inference.client import PrivateInferenceClient

STUDENTS = synthetic_students("por", 3).drop(columns=["G3"])


def refusal(service, home):
    transport = httpx.MockTransport(service.handle)
    policy = ClientPolicy(retries=0)
    with (
        PrivateInferenceClient(
            "http://127.0.0.1:1", home=home, policy=policy, transport=transport
        ) as client,
        pytest.raises(InferenceMismatch) as caught,
    ):
        client.predict(STUDENTS)
    assert all(request.method == "GET" for request in service.seen)
    return str(caught.value)


def with_limits(service, limits):
    changed = dataclasses.replace(service.parameters, limits=tuple(limits))
    service.card_changes = {
        "parameters": changed.to_dict(),
        "parameters_id": changed.identifier,
    }
    return service


@pytest.mark.parametrize("factor", [0, 1, 4, 6])
def test_a_service_cannot_learn_a_feature_by_which_students_it_lets_be_asked_about(
    tmp_path, factor
):
    # A student beyond a made-up limit would not be sent, and that nothing comes is seen.
    service = small_service()
    limits = np.array(service.parameters.limits)
    limits[np.argmax(limits)] = limits.max() * factor // 8
    assert "ranges" in refusal(with_limits(service, limits.tolist()), tmp_path)


def test_answers_that_would_not_fit_in_memory_are_not_asked_for(tmp_path, monkeypatch):
    monkeypatch.setattr(asking, "MOST_ANSWER_BYTES", 10_000)
    assert "10000 bytes" in refusal(small_service(), tmp_path)

"""Schemes of private predictions: one contract, and what ours saves against the reference."""

import numpy as np
import pytest

from twopm_flower.errors import PrivacyError
from twopm_flower.inference.linear import LinearClient, LinearService
from twopm_flower.inference.tenseal_dot import TensealClient, TensealService
from twopm_flower.privacy.linear_model import PreparedLinear, QuantisedLinear
from twopm_flower.privacy.linear_parameters import LinearParameters

MODEL = "0x" + "5a" * 32
RNG = np.random.default_rng(3)
WEIGHT, BIAS = RNG.normal(0, 0.3, (1, 41)).astype(np.float32), np.float32([0.4])
ROW = RNG.uniform(-1, 1, (1, 41))


def ours(policy="public"):
    parameters = LinearParameters.derive(WEIGHT, BIAS, np.ones(41), policy)
    quantised = QuantisedLinear.of(WEIGHT, BIAS, parameters)
    key = b"k" * 32 if policy == "secret" else None
    service = LinearService(PreparedLinear.of(quantised, parameters), MODEL, key)
    return LinearClient(parameters, MODEL), service


@pytest.fixture(scope="module")
def reference():
    client = TensealClient()
    return client, TensealService(WEIGHT, BIAS, client.setup())


@pytest.mark.parametrize("policy", ["public", "secret"])
def test_our_scheme_predicts_and_needs_no_evaluation_keys(policy):
    client, service = ours(policy)
    request, key = client.encrypt(ROW)
    response = service.answer(request)
    assert abs(client.open(response, key) - (ROW @ WEIGHT.T + BIAS)).max() < 4e-3
    assert service.setup_bytes == 0
    assert len(request) + len(response) < 30_000
    assert service.answer(request) == response
    assert "k" * 32 not in repr(service)


def test_the_reference_predicts_with_megabytes_of_keys(reference):
    client, service = reference
    request, key = client.encrypt(ROW)
    found = client.open(service.answer(request), key)
    assert abs(found - (ROW @ WEIGHT.T + BIAS)).max() < 1e-5
    assert service.setup_bytes > 10_000_000
    assert "redacted" in repr(key)


def test_the_reference_takes_one_row_and_one_class(reference):
    client, _ = reference
    with pytest.raises(PrivacyError, match="takes one row"):
        client.encrypt(np.ones((2, 41)))
    with pytest.raises(PrivacyError, match="one class"):
        TensealService(np.ones((2, 41)), np.ones(2), b"")

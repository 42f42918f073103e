"""Links: what scores become, also where powers would overflow."""

import numpy as np
import pytest

from twopm_flower.errors import ConfigError
from twopm_flower.inference.links import apply_link, link_of

SCORES = np.array([[-1e4, 0.0, 1e4], [1.0, 1.0, 1.0], [3.0, -2.0, 0.5]])


def test_a_sigmoid_is_a_half_at_zero_symmetric_and_never_overflows():
    values = apply_link("sigmoid", SCORES.reshape(-1, 1))
    assert values[[0, 2], 0].tolist() == [0.0, 1.0]
    assert values[1, 0] == 0.5
    assert np.allclose(values + apply_link("sigmoid", -SCORES.reshape(-1, 1)), 1, atol=1e-15)
    assert values[6, 0] == pytest.approx(1 / (1 + np.exp(-3.0)))


def test_a_softmax_adds_up_to_one_and_never_overflows():
    values = apply_link("softmax", SCORES)
    assert np.allclose(values.sum(axis=1), 1)
    assert values[0].tolist() == [0, 0, 1]
    assert np.allclose(values[1], 1 / 3)
    assert values[2, 0] / values[2, 2] == pytest.approx(np.exp(2.5))


def test_an_identity_changes_nothing():
    assert np.array_equal(apply_link("identity", SCORES), SCORES)


def test_families_have_the_links_that_they_were_trained_with():
    assert link_of("logistic-regression", 1) == "sigmoid"
    assert link_of("logistic-regression", 5) == "softmax"
    assert link_of("linear-regression", 1) == "identity"


def test_unknown_families_and_links_are_refused():
    with pytest.raises(ConfigError, match="'convnet' are unknown"):
        link_of("convnet", 1)
    with pytest.raises(ConfigError, match="no link 'probit'"):
        apply_link("probit", SCORES)

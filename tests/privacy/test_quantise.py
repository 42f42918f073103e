"""Quantised updates keep to their bound, and means to their stated error."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from twopm_flower.errors import HeadroomError
from twopm_flower.privacy.quantise import error_bound, mean, quantise, steps

finite = st.floats(-1e6, 1e6, allow_nan=False)


@given(
    st.lists(finite, min_size=1, max_size=20),
    st.floats(1e-3, 50.0),
    st.integers(51, 10**6),
    st.integers(1, 1000),
    st.integers(0, 1000),
)
def test_no_value_exceeds_the_limit_and_none_is_off_by_more_than_half_a_step(
    update, clip, limit, samples, more
):
    bound = samples + more
    array = np.array(update)
    values, clipped = quantise(array, clip=clip, limit=limit, samples=samples, max_samples=bound)
    assert values.dtype == np.int64
    assert int(np.abs(values).max()) <= limit
    assert clipped == sum(abs(x) > clip for x in update)
    scale = math.floor(limit / clip)
    for value, x in zip(values.tolist(), update, strict=True):
        exact = scale * Fraction(samples, bound) * min(max(Fraction(x), -Fraction(clip)), clip)
        assert abs(value - exact) <= Fraction(1, 2) + Fraction(limit, 2**50)


@given(st.lists(st.tuples(st.integers(1, 500), st.floats(-3, 3)), min_size=1, max_size=10))
def test_the_mean_is_within_the_stated_error_of_the_exact_weighted_mean(nodes):
    settings = {"clip": 2.0, "limit": 5242, "max_samples": 500}
    summed = np.zeros(1, np.int64)
    for samples, x in nodes:
        summed += quantise(np.array([x]), samples=samples, **settings)[0]
    total = sum(samples for samples, _ in nodes)
    exact = sum(n * Fraction(min(max(x, -2.0), 2.0)) for n, x in nodes) / total
    found = mean(summed, samples_total=total, **settings)[0]
    bound = error_bound(contributors=len(nodes), samples_total=total, **settings)
    assert abs(Fraction(float(found)) - exact) <= Fraction(bound)
    assert bound < 1.01 * len(nodes) * 500 / (2 * 2621 * total)


def test_half_a_step_rounds_to_the_even_neighbour():
    values, _ = quantise(np.array([0.5, 1.5, -2.5]), clip=10.0, limit=10, samples=1, max_samples=1)
    assert values.tolist() == [0, 2, -2]


def test_a_sum_is_divided_by_samples_only_after_it_is_opened():
    found = mean(np.array([30, -30]), clip=1.0, limit=10, samples_total=6, max_samples=4)
    assert found.tolist() == [30 * (4 / 60), -30 * (4 / 60)]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused(bad):
    with pytest.raises(HeadroomError, match="Value 1 "):
        quantise(np.array([0.0, bad]), clip=1.0, limit=10, samples=1, max_samples=1)


@pytest.mark.parametrize("clip", [0.0, -1.0, np.nan, np.inf, 10.5])
def test_a_clip_that_leaves_no_step_is_refused(clip):
    with pytest.raises(HeadroomError, match="clip"):
        steps(clip=clip, limit=10)


@pytest.mark.parametrize(("samples", "bound"), [(0, 5), (-1, 5), (6, 5)])
def test_a_weight_outside_the_public_bound_is_refused(samples, bound):
    with pytest.raises(HeadroomError, match="samples"):
        quantise(np.zeros(1), clip=1.0, limit=10, samples=samples, max_samples=bound)


@pytest.mark.parametrize(("total", "bound"), [(0, 5), (5, 0)])
def test_a_mean_over_nobody_is_refused(total, bound):
    with pytest.raises(HeadroomError, match="must be positive"):
        mean(np.zeros(1, np.int64), clip=1.0, limit=10, samples_total=total, max_samples=bound)

"""The compiled steps give what numpy gives, bit for bit."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twopm_flower.errors import PrivacyError
from twopm_flower.privacy import fused, one_time, packing
from twopm_flower.privacy.packing import pack, unpack
from twopm_flower.privacy.parameters import AdditiveParameters
from twopm_flower.privacy.residues import MODULUS

SEEDS = st.integers(0, 2**32 - 1)


@settings(max_examples=60, deadline=None)
@given(SEEDS, st.integers(2, 16), st.sampled_from([1, 2, 300, 2048, 2049, 2050, 5000]))
def test_phases_are_rounded_as_numpy_rounds_them(seed, guard_bits, size):
    generator = np.random.default_rng(seed)
    c0, masks = generator.integers(0, MODULUS, (2, size), dtype=np.uint64)
    edges = np.array([0, 1, MODULUS - 1, MODULUS // 2, MODULUS // 2 + 1], np.uint64)
    c0[: min(5, size)] = edges[: min(5, size)]
    masks[: min(3, size)] = 0
    mine, theirs = np.empty((2, size - -(-size // 2048)), np.int64)
    bits = np.int64(guard_bits)
    found = fused.round_rows(c0, masks, bits, mine)
    assert found == one_time._round_rows(c0, masks, bits, theirs)
    np.testing.assert_array_equal(mine, theirs)


@settings(max_examples=60, deadline=None)
@given(SEEDS, st.integers(2, 31), st.integers(1, 300))
def test_fields_are_split_as_numpy_splits_them(seed, width, size):
    generator = np.random.default_rng(seed)
    coefficients = generator.integers(-(2**53), 2**53, size)
    mine, theirs = coefficients.copy(), coefficients.copy()
    values, expected = np.empty((2, size), np.int64)
    found = fused.split_field(mine, np.int64(width), values)
    assert found == packing._split_field(theirs, np.int64(width), expected)
    np.testing.assert_array_equal(values, expected)
    np.testing.assert_array_equal(mine, theirs)


def test_large_sums_are_unpacked_and_refused_like_small_ones():
    parameters = AdditiveParameters.derive("one-time-key", 10)
    size = 2 * packing._COMPILED_FROM + 3
    generator = np.random.default_rng(1)
    values = generator.integers(-parameters.limit, parameters.limit + 1, size)
    coefficients = pack(values, parameters)
    np.testing.assert_array_equal(unpack(coefficients, size, parameters, contributors=1), values)
    coefficients[-5] += 1 << (parameters.width - 1)
    with pytest.raises(PrivacyError, match="not one of 1 updates"):
        unpack(coefficients, size, parameters, contributors=1)

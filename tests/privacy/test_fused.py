"""The compiled step gives what numpy gives, bit for bit."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from twopm_flower.privacy import fused, one_time
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

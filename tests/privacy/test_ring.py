"""Products in the ring against big integers, and the compiled ones against numpy's."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from privacy_factories import some_residues

from twopm_flower.privacy import ring_numba, ring_numpy
from twopm_flower.privacy.residues import MODULUS
from twopm_flower.privacy.ring import COMPILED_FROM_ROWS, ring_for

BOTH = pytest.mark.parametrize("ring", [ring_numpy, ring_numba])
SLOT = 16  # bytes: a sum of 2048 products of 54-bit residues has 119 bits


def naive_product(left, right):
    """The negacyclic product by one multiplication of two integers (Kronecker substitution)."""
    packed = [
        int.from_bytes(b"".join(int(x).to_bytes(SLOT, "little") for x in factor), "little")
        for factor in (left, right)
    ]
    data = (packed[0] * packed[1]).to_bytes(2 * 2048 * SLOT, "little")
    slots = [int.from_bytes(data[i : i + SLOT], "little") for i in range(0, len(data), SLOT)]
    return [(slots[i] - slots[2048 + i]) % MODULUS for i in range(2048)]


def evaluated(polynomial, point):
    value = 0
    for coefficient in reversed(polynomial.tolist()):
        value = (value * point + coefficient) % MODULUS
    return value


def monomial(exponent):
    polynomial = np.zeros((1, 2048), np.uint64)
    polynomial[0, exponent] = 1
    return polynomial


def product(ring, left, right):
    return ring.products(ring.transform(left), ring.transform(right)[0])


@BOTH
@pytest.mark.parametrize("seed", range(3))
def test_products_are_those_of_big_integers(ring, seed):
    rng = np.random.default_rng(seed)
    left, right = some_residues(rng, 3, 2048), some_residues(rng, 1, 2048)
    found = product(ring, left, right)
    for row, polynomial in zip(found, left, strict=True):
        assert row.tolist() == naive_product(polynomial, right[0])


@BOTH
def test_the_largest_residues_do_not_overflow(ring):
    largest = np.full((2, 2048), MODULUS - 1, np.uint64)
    assert product(ring, largest, largest[:1])[1].tolist() == naive_product(largest[0], largest[0])


@BOTH
def test_a_product_of_degree_2048_comes_round_with_its_sign_changed(ring):
    found = product(ring, monomial(2047), monomial(2))[0]
    assert found[1] == MODULUS - 1
    assert np.count_nonzero(found) == 1


@BOTH
@pytest.mark.parametrize("index", [0, 1, 2, 5, 1024, 2047])
def test_the_order_of_a_transform_is_the_documented_one(ring, index):
    polynomial = some_residues(np.random.default_rng(9), 1, 2048)
    turned = int(f"{index:011b}"[::-1], 2)
    point = pow(ring_numpy.ROOT, 2 * turned + 1, MODULUS)
    assert int(ring.transform(polynomial)[0, index]) == evaluated(polynomial[0], point)


def test_the_root_is_the_least_primitive_one():
    root = ring_numpy.ROOT
    assert pow(root, 2048, MODULUS) == MODULUS - 1
    assert root == min(pow(root, odd, MODULUS) for odd in range(1, 4096, 2))


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    rows=st.integers(1, 4),
    edge=st.sampled_from([0, 1, MODULUS // 2, MODULUS - 1]),
    share=st.floats(0, 1),
)
def test_compiled_and_numpy_agree_bit_for_bit(seed, rows, edge, share):
    rng = np.random.default_rng(seed)
    polynomials, factor = some_residues(rng, rows, 2048), some_residues(rng, 2048)
    polynomials[rng.random(polynomials.shape) < share] = edge
    factor[rng.random(2048) < share] = edge
    expected = ring_numpy.transform(polynomials)
    assert np.array_equal(ring_numba.transform(polynomials), expected)
    assert np.array_equal(ring_numpy.inverse_transform(expected), polynomials)
    by_numpy = ring_numpy.products(polynomials.copy(), factor)
    assert np.array_equal(ring_numba.products(polynomials.copy(), factor), by_numpy)


@settings(deadline=None)
@given(
    word=st.integers(0, 2**64 - 1) | st.integers(2**64 - 9, 2**64 - 1),
    factor=st.integers(0, MODULUS - 1) | st.integers(MODULUS - 9, MODULUS - 1),
)
def test_any_word_times_a_residue_stays_below_four_times_the_modulus(word, factor):
    quotient = np.uint64((factor << 64) // MODULUS)
    product = int(ring_numba._times(np.uint64(word), np.uint64(factor), quotient))
    assert product < 4 * MODULUS
    assert product % MODULUS == word * factor % MODULUS
    assert int(ring_numba._reduced(np.uint64(word))) == word % MODULUS


def test_the_largest_words_between_butterflies_do_not_overflow():
    words = np.repeat(np.array([0, 4 * MODULUS - 1], np.uint64), 1024)
    residues = words % MODULUS
    ring_numba._near_levels(words, *ring_numba._NEAR)
    ring_numba._near_levels(residues, *ring_numba._NEAR)
    assert np.array_equal(words % MODULUS, residues % MODULUS)


@BOTH
def test_what_may_not_be_written_is_left_as_it_is(ring):
    polynomials = some_residues(np.random.default_rng(1), 2, 2048)
    factor = some_residues(np.random.default_rng(2), 2048)
    before = polynomials.copy()
    expected = ring.products(polynomials.copy(), factor)
    for array in (polynomials, factor):
        array.setflags(write=False)
    ring.transform(polynomials)
    assert np.array_equal(ring.products(polynomials, factor), expected)
    assert np.array_equal(polynomials, before)


def test_few_rows_are_left_to_numpy():
    assert ring_for(1) is ring_numpy
    assert ring_for(COMPILED_FROM_ROWS - 1) is ring_numpy


def test_the_compiler_is_imported_once_it_would_have_paid():
    program = (
        "import sys\n"
        "from twopm_flower.privacy.ring import IMPORT_ROWS, ring_for\n"
        "loaded = lambda: 'numba' in sys.modules\n"
        "ring_for(IMPORT_ROWS // 2), [ring_for(31) for _ in range(IMPORT_ROWS)]\n"
        "before = loaded()\n"
        "ring_for(IMPORT_ROWS // 2)\n"
        "print(before, loaded(), ring_for(32).__name__)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == "False True twopm_flower.privacy.ring_numba\n"

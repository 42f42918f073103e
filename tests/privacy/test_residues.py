"""Arithmetic modulo q against Python's own integers."""

import time
import tracemalloc
from hashlib import sha256

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from privacy_factories import some_residues

from twopm_flower.errors import PrivacyError
from twopm_flower.privacy import residues as r
from twopm_flower.privacy.residues import MODULUS

TAG = b"twopm-flower/challenge/v1\0"
EXTREMES = [0, 1, 2, 2**27, 2**53 - 1, 2**53, 2**53 + 1, MODULUS // 2, MODULUS - 2, MODULUS - 1]
one_residue = st.one_of(st.sampled_from(EXTREMES), st.integers(0, MODULUS - 1))
pairs = st.lists(st.tuples(one_residue, one_residue), min_size=1, max_size=50)


def u64(values):
    return np.array(list(values), np.uint64)


def slow_fingerprint(residues, rho):
    return sum(pow(rho, j, MODULUS) * int(x) for j, x in enumerate(residues, 1)) % MODULUS


@given(pairs)
def test_products_and_sums_equal_those_of_python_integers(numbers):
    a, b = u64(x for x, _ in numbers), u64(y for _, y in numbers)
    assert r.mul_mod(a, b).tolist() == [x * y % MODULUS for x, y in numbers]
    assert r.add_mod(a, b).tolist() == [(x + y) % MODULUS for x, y in numbers]


def test_products_of_all_extremes_are_exact():
    a, b = (m.ravel() for m in np.meshgrid(u64(EXTREMES), u64(EXTREMES)))
    exact = [int(x) * int(y) % MODULUS for x, y in zip(a, b, strict=True)]
    assert r.mul_mod(a, b).tolist() == exact


@pytest.mark.parametrize("result", [0, 1, 2, MODULUS - 2, MODULUS - 1])
def test_products_that_end_beside_a_multiple_of_q_are_exact(result):
    a = some_residues(np.random.default_rng(4), 3000)
    b = u64(result * pow(int(x), -1, MODULUS) % MODULUS for x in a)
    assert set(r.mul_mod(a, b).tolist()) == {result}


def test_products_of_many_random_residues_are_exact():
    rng = np.random.default_rng(0)
    a, b = some_residues(rng, 100_000), some_residues(rng, 100_000)
    exact = (a.astype(object) * b.astype(object)) % MODULUS
    assert r.mul_mod(a, b).tolist() == exact.tolist()


@given(st.lists(st.lists(one_residue, min_size=3, max_size=3), min_size=1, max_size=40))
def test_a_sum_of_many_vectors_does_not_depend_on_order_and_leaves_them_alone(rows):
    vectors = [u64(row) for row in rows]
    exact = [sum(column) % MODULUS for column in zip(*rows, strict=True)]
    assert r.sum_mod(vectors).tolist() == exact
    assert r.sum_mod(vectors[::-1]).tolist() == exact
    assert [v.tolist() for v in vectors] == rows


def test_nothing_and_unequal_shapes_cannot_be_added():
    with pytest.raises(PrivacyError, match="nothing to add"):
        r.sum_mod([])
    with pytest.raises(PrivacyError, match="shape"):
        r.sum_mod([np.zeros(3, np.uint64), np.zeros(1, np.uint64)])


@given(st.lists(one_residue, min_size=1, max_size=60))
def test_centred_residues_are_the_nearest_to_zero(values):
    found = r.centred(u64(values)).tolist()
    assert all(
        (x - y) % MODULUS == 0 and 2 * abs(x) < MODULUS for x, y in zip(found, values, strict=True)
    )


@given(st.lists(one_residue, max_size=60), st.integers(1, MODULUS - 1))
def test_a_fingerprint_is_the_polynomial_with_the_residues_as_coefficients(values, rho):
    assert r.fingerprint(u64(values), rho) == slow_fingerprint(values, rho)


@pytest.mark.parametrize("size", [2**14 - 1, 2**14, 2**14 + 1, 3 * 2**14 + 5])
def test_a_fingerprint_is_the_same_across_blocks(size):
    values = np.full(size, MODULUS - 1, np.uint64)
    values[::3] = some_residues(np.random.default_rng(size), *values[::3].shape)
    rho = MODULUS - 2
    assert r.fingerprint(values, rho) == slow_fingerprint(values.tolist(), rho)


def test_fingerprints_of_the_parts_add_up_to_that_of_the_sum():
    rng = np.random.default_rng(1)
    parts = [some_residues(rng, 20_000) for _ in range(5)]
    for rho in r.challenges("0x" + "ab" * 32):
        total = sum(r.fingerprint(part, rho) for part in parts) % MODULUS
        assert r.fingerprint(r.sum_mod(parts), rho) == total


def test_one_changed_residue_changes_every_fingerprint():
    values = some_residues(np.random.default_rng(2), 50_000)
    changed = values.copy()
    changed[49_999] ^= np.uint64(1)
    for rho in r.challenges("0x" + "cd" * 32):
        assert r.fingerprint(values, rho) != r.fingerprint(changed, rho)


@pytest.mark.parametrize("rho", [0, -1, MODULUS, MODULUS + 1])
def test_a_challenge_out_of_range_is_refused(rho):
    with pytest.raises(PrivacyError, match="Challenge"):
        r.fingerprint(np.ones(3, np.uint64), rho)


def test_challenges_are_fixed_by_the_manifest_and_differ():
    first = r.challenges("0x" + "00" * 32)
    assert first == r.challenges("0x" + "00" * 32)
    assert len(set(first + r.challenges("0x" + "00" * 31 + "01"))) == 6
    assert all(0 < rho < MODULUS for rho in first)
    written_out = tuple(
        1 + int(sha256(TAG + bytes(32) + bytes([m])).hexdigest(), 16) % (MODULUS - 1)
        for m in (1, 2, 3)
    )
    assert first == written_out
    with pytest.raises(PrivacyError, match="digest of 32 bytes"):
        r.challenges("0x1234")


def test_residues_are_written_little_endian_in_eight_bytes():
    assert r.residue_bytes(u64([1, MODULUS - 1])) == (
        (1).to_bytes(8, "little") + (MODULUS - 1).to_bytes(8, "little")
    )


def test_a_value_that_is_no_residue_is_named():
    with pytest.raises(PrivacyError, match=rf"c0\[2\] is {MODULUS}"):
        r.as_residues(u64([0, MODULUS - 1, MODULUS]), "c0")
    with pytest.raises(PrivacyError, match="int64"):
        r.as_residues(np.zeros(3, np.int64), "c0")


def test_a_million_residues_take_a_fingerprint_in_little_time_and_memory():
    values = some_residues(np.random.default_rng(3), 1_000_000)
    tracemalloc.start()
    started = time.perf_counter()
    r.fingerprint(values, 12345)
    elapsed = time.perf_counter() - started
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4_000_000
    assert elapsed < 2.0

"""The compiled sampler against SEAL's own, and against its definition."""

import struct

import numpy as np
import pytest
import tenseal.sealapi as seal
from hypothesis import given, settings
from hypothesis import strategies as st
from privacy_factories import bfv

from twopm_flower.privacy import seal_sampler, tenseal_bfv
from twopm_flower.privacy.ciphertext import SeededCiphertext
from twopm_flower.privacy.residues import MODULUS
from twopm_flower.privacy.tenseal_bfv import BfvBackend

ONE_ROW = np.zeros(2048, np.uint64)


def some_seeds(rows, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (rows, 64), dtype=np.uint8)


def grown_by_seal(seeds):
    ciphertext = SeededCiphertext(np.tile(ONE_ROW, len(seeds)), seeds)
    return BfvBackend(bfv()).expand(ciphertext).c1


@given(st.binary(min_size=64, max_size=64))
@settings(max_examples=40, deadline=None)
def test_any_seed_grows_into_the_polynomial_that_seal_grows(seed):
    seeds = np.frombuffer(seed, np.uint8).reshape(1, 64)
    assert np.array_equal(seal_sampler.grow(seeds), grown_by_seal(seeds))


def test_many_seeds_grow_row_by_row():
    seeds = some_seeds(300)
    assert np.array_equal(seal_sampler.grow(seeds), grown_by_seal(seeds))


def words_of(seed, count):
    generator = seal.Blake2xbPRNG(list(struct.unpack("<8Q", seed.tobytes())))
    return [generator.generate() | generator.generate() << 32 for _ in range(count)]


def test_the_limit_beyond_which_words_are_redrawn_is_seals():
    # max_random - barrett_reduce_64(max_random, modulus) - 1
    largest = 2**64 - 1
    assert int(seal_sampler._LIMIT) == largest - largest % MODULUS - 1


@pytest.mark.parametrize("share", [0.995, 0.5, 0.2])
def test_redrawn_words_come_in_the_order_of_the_stream_however_many_there_are(share):
    # At SEAL's own limit it is one word in 2**37, so no seed that shows it can be found.
    limit = int(share * 2**64)
    seeds = some_seeds(2, seed=1)
    found = np.empty((2, 2048), np.uint64)
    seal_sampler._fill_rows(seeds.view(np.uint64), found, np.uint64(limit))
    for row, seed in zip(found, seeds, strict=True):
        words = words_of(seed, 20_000)
        stream, later = words[:2048], iter(words[2048:])
        expected = []
        for first in stream:
            word = first
            while word >= limit:
                word = next(later)
            expected.append(word % MODULUS)
        assert row.tolist() == expected


def test_read_only_and_unaligned_seeds_grow_as_well():
    seeds = some_seeds(3)
    shifted = np.frombuffer(b"x" + seeds.tobytes(), np.uint8)[1:].reshape(3, 64)
    assert np.array_equal(seal_sampler.grow(shifted), seal_sampler.grow(seeds))


def test_a_backend_changes_from_seal_to_compiled_code_without_anybody_noticing(monkeypatch):
    monkeypatch.setattr(tenseal_bfv, "_COMPILE_AFTER_ROWS", 4)
    compiled = []
    grow = seal_sampler.grow
    monkeypatch.setattr(seal_sampler, "grow", lambda s: compiled.append(len(s)) or grow(s))
    backend = BfvBackend(bfv())
    ciphertext = SeededCiphertext(np.tile(ONE_ROW, 2), some_seeds(2))
    first = backend.expand(ciphertext)
    assert (backend.expand(ciphertext), compiled) == (first, [])
    assert (backend.expand(ciphertext), compiled) == (first, [2])

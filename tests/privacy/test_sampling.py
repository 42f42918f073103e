"""Randomness of one-time keys: what is public is specified, what is secret has its distribution."""

import hashlib
import math

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from twopm_flower.privacy import sampling
from twopm_flower.privacy.residues import MODULUS
from twopm_flower.privacy.sampling import (
    WordStream,
    centred_binomial,
    fresh_stream,
    uniform_rows,
)

SEED = bytes(range(32))


def keyed(tag, *parts):
    return hashlib.sha256(b"twopm-flower/" + tag + b"\0" + b"".join(parts)).digest()


def block_words(key, block):
    """Two words of the key stream, by encrypting the counter itself."""
    encryptor = Cipher(algorithms.AES(key), modes.ECB()).encryptor()
    data = encryptor.update(block.to_bytes(16, "big"))
    return [int.from_bytes(data[:8], "little"), int.from_bytes(data[8:], "little")]


def specified_row(seed, row, modulus):
    """A row of the polynomial a, written out from the specification."""
    low = (1 << 54) - 1
    key, spare_key = keyed(b"one-time-a/v1", seed), b""
    residues, used = [], 0
    for column in range(2048):
        block, half = divmod(2048 * row + column, 2)
        residue = block_words(key, block)[half] & low
        while residue >= modulus:
            spare_key = keyed(b"one-time-a-spare/v1", seed, row.to_bytes(8, "little"))
            residue = block_words(spare_key, used // 2)[used % 2] & low
            used += 1
        residues.append(residue)
    return residues


@pytest.mark.parametrize("row", [0, 1, 300])
def test_public_rows_are_the_specified_ones(row):
    assert uniform_rows(SEED, row, 1)[0].tolist() == specified_row(SEED, row, MODULUS)


def test_words_that_are_no_residues_are_replaced_as_specified(monkeypatch):
    # One word in 2**37 is not below the real modulus; under this one half of them are not.
    monkeypatch.setattr(sampling, "MODULUS", 1 << 53)
    rows = uniform_rows(SEED, 4, 2)
    assert rows[0].tolist() == specified_row(SEED, 4, 1 << 53)
    assert rows[1].tolist() == specified_row(SEED, 5, 1 << 53)


def test_rows_are_the_same_in_whatever_pieces_they_are_grown():
    together = uniform_rows(SEED, 0, 40)
    assert np.array_equal(together[17:23], uniform_rows(SEED, 17, 6))
    assert together.dtype == np.uint64
    assert together.shape == (40, 2048)


def test_rows_of_any_two_places_and_seeds_differ():
    rows = [row.tobytes() for row in uniform_rows(SEED, 0, 50)]
    rows += [row.tobytes() for row in uniform_rows(bytes(32), 0, 50)]
    assert len(set(rows)) == 100


def test_public_residues_are_spread_evenly():
    residues = uniform_rows(SEED, 0, 100).ravel()
    assert int(residues.max()) < MODULUS
    counts, _ = np.histogram(residues, bins=64, range=(0, MODULUS))
    expected = residues.size / 64
    statistic = float(((counts - expected) ** 2 / expected).sum())
    # 63 degrees of freedom; the seed is fixed, so this never varies.
    assert statistic < 110


def test_a_stream_goes_on_where_it_stopped():
    stream, again = WordStream(SEED), WordStream(SEED)
    pieces = [stream.take(count) for count in (3, 1, 20_001, 0, 7)]
    assert np.array_equal(np.concatenate(pieces), again.take(20_012))


def test_a_stream_may_start_at_any_block():
    assert np.array_equal(WordStream(SEED).take(20)[10:], WordStream(SEED, 5).take(10))


def test_samples_are_the_differences_of_counted_coins():
    words = WordStream(SEED).take(200).tolist()
    ones = [(word % (1 << 42)).bit_count() for word in words]
    expected = [ones[i] - ones[i + 1] for i in range(0, 200, 2)]
    found = centred_binomial(WordStream(SEED), 100)
    assert found.dtype == np.int64
    assert found.tolist() == expected


def test_fresh_samples_have_the_centred_binomial_distribution():
    count = 400_000
    samples = centred_binomial(fresh_stream(), count)
    assert np.abs(samples).max() <= 42
    # Six standard errors each: a right implementation fails once in about 10**8 runs.
    assert abs(samples.mean()) < 6 * math.sqrt(21 / count)
    assert abs(samples.var() - 21) < 6 * 21 * math.sqrt(2 / count)
    for value in (-9, -3, 0, 1, 5, 12):
        probability = math.comb(84, 42 + value) / 2**84
        deviation = math.sqrt(count * probability * (1 - probability))
        assert abs(np.count_nonzero(samples == value) - count * probability) < 6 * deviation


def test_fresh_streams_have_nothing_in_common():
    first, second = fresh_stream().take(4000), fresh_stream().take(4000)
    assert not set(first.tolist()) & set(second.tolist())

"""Masks cancel in the sum of all members and in nothing less."""

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twopm_flower.errors import HeadroomError, KeyCeremonyError, PrivacyError
from twopm_flower.privacy.keys import SealingKey
from twopm_flower.privacy.masking import mask, unmask_sum

KEYS = [SealingKey.create() for _ in range(6)]
ADDRESSES = ["0x" + hashlib.sha256(bytes([i])).hexdigest()[:40] for i in range(6)]


def masked_by_all(vectors, context=b"round 3", order=None):
    members = list(zip(ADDRESSES, KEYS, vectors, strict=False))
    return [
        mask(
            vector,
            own_address=address,
            own_key=key,
            peers=[(a, k.public) for a, k, _ in members if a != address],
            context=context,
        )
        for address, key, vector in members
    ]


values = st.integers(-(2**60), 2**60)


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 6), st.integers(1, 5), st.data())
def test_the_sum_over_all_members_is_exact_in_any_order(members, length, data):
    vectors = data.draw(
        st.lists(
            st.lists(values, min_size=length, max_size=length), min_size=members, max_size=members
        )
    )
    vectors = [[v // 8 for v in vector] for vector in vectors]
    masked = data.draw(st.permutations(masked_by_all(vectors)))
    assert unmask_sum(masked) == tuple(sum(column) for column in zip(*vectors, strict=True))


def looks_uniform(numbers):
    top = (np.array(numbers, np.int64).view(np.uint64) >> np.uint64(60)).astype(np.int64)
    counts = np.bincount(top, minlength=16)
    expected = len(numbers) / 16
    # Pearson's statistic with 15 degrees of freedom: 60 is passed about once in 10**6.
    return float(((counts - expected) ** 2 / expected).sum()) < 60


@pytest.mark.parametrize("members", [2, 3, 5])
def test_every_vector_and_every_strict_subset_looks_uniform(members):
    masked = masked_by_all([[1] * 4000] * members)
    for vector in masked:
        assert looks_uniform(vector.view(np.int64))
    for left_out in range(members):
        subset = masked[:left_out] + masked[left_out + 1 :]
        if len(subset) > 1:
            assert looks_uniform(unmask_sum(subset))
    assert unmask_sum(masked) == (members,) * 4000


def test_the_check_for_uniformity_notices_plain_numbers():
    assert not looks_uniform([1] * 4000)
    assert not looks_uniform(list(range(4000)))


def test_contexts_are_separate():
    first, second = masked_by_all([[5] * 100] * 3), masked_by_all([[5] * 100] * 3, b"round 4")
    assert not np.array_equal(first[0], second[0])
    mixed = unmask_sum([first[0], first[1], second[2]])
    assert 15 not in mixed
    assert len(set(mixed)) == 100


def test_the_lower_address_adds_and_the_higher_subtracts():
    low, high = sorted(ADDRESSES[:2])
    a, b = KEYS[:2]
    added = mask([0] * 9, own_address=low, own_key=a, peers=[(high, b.public)], context=b"x")
    taken = mask([0] * 9, own_address=high, own_key=b, peers=[(low, a.public)], context=b"x")
    assert np.array_equal(added, np.zeros(9, np.uint64) - taken)
    # The addresses themselves enter the key, so the roles cannot be exchanged.
    swapped = mask([0] * 9, own_address=high, own_key=a, peers=[(low, b.public)], context=b"x")
    assert np.array_equal(swapped, np.zeros(9, np.uint64) - added)


def test_the_mask_is_the_specified_keystream():
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    low, high = sorted(ADDRESSES[:2])
    info = b"twopm-flower/pairwise-mask/v1\0" + b"x" + bytes.fromhex(low[2:] + high[2:])
    key = HKDF(SHA256(), 32, None, info).derive(KEYS[0].agree(KEYS[1].public).reveal())
    stream = Cipher(algorithms.ChaCha20(key, bytes(16)), None).encryptor().update(bytes(24))
    found = mask(
        [7, 0, 0], own_address=low, own_key=KEYS[0], peers=[(high, KEYS[1].public)], context=b"x"
    )
    words = [int.from_bytes(stream[i : i + 8], "little") for i in (0, 8, 16)]
    assert found.tolist() == [(7 + words[0]) % 2**64, words[1], words[2]]


def test_spelling_an_address_in_capitals_changes_nothing():
    peers = [(ADDRESSES[1], KEYS[1].public)]
    capitals = [("0x" + ADDRESSES[1][2:].upper(), KEYS[1].public)]
    made = [
        mask([1], own_address=ADDRESSES[0], own_key=KEYS[0], peers=p, context=b"")
        for p in (peers, capitals)
    ]
    assert np.array_equal(*made)


@pytest.mark.parametrize(
    "peers",
    [
        [],
        [(ADDRESSES[0], KEYS[1].public)],
        [(ADDRESSES[1], KEYS[1].public), (ADDRESSES[1], KEYS[2].public)],
        [("0x12", KEYS[1].public)],
        [("zz" * 20, KEYS[1].public)],
    ],
)
def test_a_group_without_others_or_with_someone_twice_is_refused(peers):
    with pytest.raises(PrivacyError):
        mask([1], own_address=ADDRESSES[0], own_key=KEYS[0], peers=peers, context=b"")


def test_a_peer_without_a_usable_key_is_refused():
    with pytest.raises(KeyCeremonyError):
        mask(
            [1],
            own_address=ADDRESSES[0],
            own_key=KEYS[0],
            peers=[(ADDRESSES[1], "0x" + "00" * 32)],
            context=b"",
        )


def test_values_whose_sum_could_wrap_are_refused():
    largest = (2**63 - 1) // 3
    assert unmask_sum(masked_by_all([[largest, -largest]] * 3)) == (3 * largest, -3 * largest)
    for beyond in (largest + 1, -largest - 1):
        with pytest.raises(HeadroomError):
            masked_by_all([[beyond]] * 3)


def test_vectors_that_do_not_belong_together_are_refused():
    a, b = masked_by_all([[1, 2], [3, 4]])
    for wrong in ([], [a], [a, b[:1]], [a, b.astype(np.int64)], [a.reshape(1, 2), b.reshape(1, 2)]):
        with pytest.raises(PrivacyError):
            unmask_sum(wrong)

"""Digests bind a ciphertext to its place, and adding needs residues only."""

import hashlib

import numpy as np
import pytest
from privacy_factories import a_ciphertext, a_context, a_layout, a_seeded, bfv, some_residues

from twopm_flower.errors import FrameError, HeadroomError, PrivacyError
from twopm_flower.privacy.ciphertext import Ciphertext, RunningSum, SeededCiphertext, add
from twopm_flower.privacy.residues import MODULUS, challenges, fingerprint

P, LAYOUT = bfv(), a_layout(5000)


def test_the_digest_is_over_the_binding_the_counts_and_the_residues():
    c, context = a_ciphertext(P, LAYOUT), a_context(P, LAYOUT)
    parts = [
        b"twopm-flower/update/v1\0",
        b"\x11" * 32,
        (3).to_bytes(8, "little"),
        (1).to_bytes(4, "little"),
        b"\x22" * 20,
        b"\x33" * 32,
        bytes.fromhex(P.identifier[2:]),
        bytes.fromhex(LAYOUT.digest[2:]),
        (2).to_bytes(4, "little"),
        (2501).to_bytes(4, "little"),
        b"".join(int(x).to_bytes(8, "little") for x in [*c.c0, *c.c1.ravel()]),
    ]
    assert c.digest(context) == "0x" + hashlib.sha256(b"".join(parts)).hexdigest()
    parts[0] = b"twopm-flower/aggregate/v1\0"
    del parts[4]
    assert c.aggregate_digest(context) == "0x" + hashlib.sha256(b"".join(parts)).hexdigest()


@pytest.mark.parametrize(
    "change",
    [
        {"task_id": "0x" + "12" * 32},
        {"round": 4},
        {"attempt": 2},
        {"node": "0x" + "23" * 20},
        {"key_id": "0x" + "34" * 32},
        {"parameters_id": "0x" + "35" * 32},
        {"layout_digest": "0x" + "36" * 32},
    ],
)
def test_any_change_of_the_place_changes_the_digest(change):
    c = a_ciphertext(P, LAYOUT)
    right, other = a_context(P, LAYOUT), a_context(P, LAYOUT, **change)
    assert c.digest(right) != c.digest(other)
    assert (c.aggregate_digest(right) != c.aggregate_digest(other)) == ("node" not in change)


@pytest.mark.parametrize("half", ["c0", "c1"])
def test_any_changed_residue_changes_the_digest(half):
    c, context = a_ciphertext(P, LAYOUT), a_context(P, LAYOUT)
    parts = {"c0": c.c0.copy(), "c1": c.c1.copy()}
    parts[half].ravel()[-1] = (int(parts[half].ravel()[-1]) + 1) % MODULUS
    changed = Ciphertext(**parts)
    assert changed != c
    assert changed.digest(context) != c.digest(context)


def test_the_sum_is_of_python_integers_modulo_q_in_any_order():
    parts = [a_ciphertext(P, LAYOUT, seed) for seed in range(4)]
    total = add(parts, max_nodes=10)
    assert total == add(parts[::-1], max_nodes=10)
    exact = sum(part.residues().astype(object) for part in parts) % MODULUS
    assert total.residues().tolist() == exact.tolist()


def test_fingerprints_of_updates_add_up_to_the_aggregates():
    parts = [a_ciphertext(P, LAYOUT, seed) for seed in range(3)]
    total = add(parts, max_nodes=10).residues()
    for rho in challenges("0x" + "77" * 32):
        summed = sum(fingerprint(part.residues(), rho) for part in parts) % MODULUS
        assert fingerprint(total, rho) == summed


def test_more_ciphertexts_than_agreed_are_not_added():
    parts = [a_ciphertext(P, LAYOUT, seed) for seed in range(3)]
    with pytest.raises(HeadroomError, match="exceed the 2"):
        add(parts, max_nodes=2)


def test_ciphertexts_of_different_size_are_not_added():
    with pytest.raises(PrivacyError, match="shape"):
        add([a_ciphertext(P, LAYOUT), a_ciphertext(P, a_layout(41))], max_nodes=3)
    with pytest.raises(PrivacyError, match="nothing to add"):
        add([], max_nodes=3)


def test_a_ciphertext_cannot_be_made_of_anything_but_residues():
    rng = np.random.default_rng(0)
    c0, c1 = some_residues(rng, 21), some_residues(rng, 1, 2048)
    beyond = np.full(21, MODULUS, np.uint64)
    for bad0, bad1 in (
        (beyond, c1),
        (c0.astype(np.int64), c1),
        (c0[:0], c1[:0]),
        (c0.reshape(3, 7), c1),
        (c0, c1[:, :2047]),
        (c0, c1.ravel()),
        (c0, np.vstack([c1, c1])),
        (c0, np.full((1, 2048), MODULUS, np.uint64)),
    ):
        with pytest.raises(PrivacyError):
            Ciphertext(bad0, bad1)
    seeds = np.zeros((1, 64), np.uint8)
    for bad in (seeds[:, :63], seeds.astype(np.int8), seeds.ravel(), np.vstack([seeds, seeds])):
        with pytest.raises(PrivacyError):
            SeededCiphertext(c0, bad)


def test_equality_and_hash_follow_the_residues():
    assert a_seeded(P, LAYOUT, 1) == a_seeded(P, LAYOUT, 1) != a_seeded(P, LAYOUT, 2)
    assert len({a_seeded(P, LAYOUT, 1), a_seeded(P, LAYOUT, 1), a_seeded(P, LAYOUT, 2)}) == 2
    assert len({a_ciphertext(P, LAYOUT, 1), a_ciphertext(P, LAYOUT, 1)}) == 1


def test_the_residues_of_a_ciphertext_cannot_be_changed():
    with pytest.raises(ValueError, match="read-only"):
        a_ciphertext(P, LAYOUT).c0[0] = 1


@pytest.mark.parametrize(
    "change",
    [
        {"task_id": "0x11"},
        {"node": "0x" + "22" * 32},
        {"key_id": "0x" + "zz" * 32},
        {"round": -1},
        {"round": 1 << 64},
        {"attempt": 1 << 32},
        {"round": True},
        {"layout_digest": None},
    ],
)
def test_a_context_that_does_not_fit_its_bytes_is_refused(change):
    with pytest.raises(FrameError):
        a_context(P, LAYOUT, **change)


def test_a_checksummed_address_is_the_same_node():
    mixed = a_context(P, LAYOUT, node="0x" + "aBcD" * 10)
    assert mixed == a_context(P, LAYOUT, node="0x" + "abcd" * 10)


def test_a_running_sum_is_the_sum_of_all_and_leaves_what_was_added_alone():
    parts = [a_ciphertext(P, LAYOUT, seed=seed) for seed in range(4)]
    copies = [Ciphertext(part.c0.copy(), part.c1.copy()) for part in parts]
    running = RunningSum(4)
    for part in parts:
        running.add(part)
    assert running.total() == add(parts, max_nodes=4)
    assert parts == copies
    with pytest.raises(HeadroomError, match="5 ciphertexts exceed the 4"):
        running.add(parts[0])


def test_a_running_sum_of_nothing_or_of_other_shapes_is_refused():
    running = RunningSum(3)
    with pytest.raises(PrivacyError, match="nothing to add"):
        running.total()
    running.add(a_ciphertext(P, LAYOUT))
    with pytest.raises(PrivacyError, match="cannot be added"):
        running.add(a_ciphertext(P, a_layout(9000)))


def test_what_is_grown_for_a_seeded_ciphertext_is_checked():
    seeded = a_seeded(P, LAYOUT)
    rows = len(seeded.seeds)
    with pytest.raises(PrivacyError, match="not below the modulus"):
        seeded.with_c1(np.full((rows, 2048), MODULUS, np.uint64))
    with pytest.raises(PrivacyError, match="rows"):
        seeded.with_c1(np.zeros((rows + 1, 2048), np.uint64))

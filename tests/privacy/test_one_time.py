"""One-time keys as a node uses them: what opens, what is refused, and what is never repeated."""

import copy
import hashlib
import pickle
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from privacy_factories import one_time, update_keys

from twopm_flower.errors import BadOpening, HeadroomError, PrivacyError
from twopm_flower.privacy import ring, ring_numpy
from twopm_flower.privacy.ciphertext import Ciphertext, SeededCiphertext, add
from twopm_flower.privacy.one_time import OneTimeBackend
from twopm_flower.privacy.one_time_key import OneTimeKey, public_seed
from twopm_flower.privacy.residues import MODULUS, add_mod, centred
from twopm_flower.privacy.sampling import uniform_rows

P = one_time(10)
BACKEND = OneTimeBackend(P)
SEED = bytes(range(32))
NO_C1 = np.empty((0, 2048), np.uint64)


def some_coefficients(seed, size):
    bound = P.largest_coefficient
    return np.random.default_rng(seed).integers(-bound, bound, size, endpoint=True)


def encrypted(values, key):
    return BACKEND.expand(BACKEND.encrypt(values, key))


def opening_of(*keys):
    return OneTimeKey.of_sum(np.sum([key.secret for key in keys], axis=0), keys[0].public_seed)


def shifted(ciphertext, index, by):
    c0 = ciphertext.c0.copy()
    c0[index] = (int(c0[index]) + by) % MODULUS
    return Ciphertext(c0, ciphertext.c1)


def noise_of(values, key):
    """The noise of a fresh encryption of `values`, which fill whole rows, row by row."""
    rows = values.reshape(-1, 2047)
    c0 = encrypted(values, key).c0.reshape(-1, 2048)
    secret = ring_numpy.transform((key.secret % MODULUS).astype(np.uint64)[None])[0]
    masks = ring_numpy.products(uniform_rows(key.public_seed, 0, len(rows)), secret)
    phase = centred(add_mod(c0, masks))
    return phase - (np.pad(rows, ((0, 0), (1, 0))) << P.guard_bits)


def test_only_used_coefficients_and_one_more_per_row_travel():
    for size, count in ((1, 2), (2047, 2048), (2048, 2050), (5000, 5003)):
        seeded = BACKEND.encrypt(some_coefficients(0, size), OneTimeKey.fresh(SEED))
        assert seeded.c0.size == count
        assert len(seeded.seeds) == 0
        assert BACKEND.expand(seeded).c1.shape == (0, 2048)


@settings(max_examples=25, deadline=None)
@given(
    nodes=st.integers(1, 12),
    fields=st.integers(1, 3),
    size=st.sampled_from([1, 2046, 2047, 2048, 4095, 70_000]),
    seed=st.integers(0, 2**32),
)
def test_a_sum_of_the_largest_values_opens_exactly(nodes, fields, size, seed):
    parameters = one_time(nodes, fields)
    backend = OneTimeBackend(parameters)
    signs = np.random.default_rng(seed).choice([-1, 1], size)
    values = signs * parameters.largest_coefficient
    keys, key = update_keys(backend, nodes, SEED)
    total = add([backend.expand(backend.encrypt(values, own)) for own in keys], max_nodes=nodes)
    assert np.array_equal(backend.decrypt(total, key), nodes * values)


def test_one_beyond_the_limit_is_refused_and_the_key_stays_unused():
    key = OneTimeKey.fresh(SEED)
    for sign in (1, -1):
        beyond = np.array([0, sign * (P.largest_coefficient + 1)])
        with pytest.raises(HeadroomError, match="Nothing was encrypted"):
            BACKEND.encrypt(beyond, key)
    assert encrypted(np.array([P.largest_coefficient]), key)


@pytest.mark.parametrize("shape", [(0,), (2, 3)])
def test_what_is_no_vector_of_coefficients_is_refused(shape):
    with pytest.raises(PrivacyError, match="not a vector"):
        BACKEND.encrypt(np.zeros(shape, np.int64), OneTimeKey.fresh(SEED))


def test_compiled_and_numpy_rings_open_the_same(monkeypatch):
    values = some_coefficients(1, 2047 * 70 + 5)
    keys, key = update_keys(BACKEND, 2, SEED)
    monkeypatch.setattr(ring, "IMPORT_ROWS", 0)
    compiled = encrypted(values, keys[0])
    monkeypatch.setattr(ring, "COMPILED_FROM_ROWS", 1000)
    total = add([compiled, encrypted(values, keys[1])], max_nodes=10)
    assert np.array_equal(BACKEND.decrypt(total, key), 2 * values)
    monkeypatch.setattr(ring, "COMPILED_FROM_ROWS", 0)
    assert np.array_equal(BACKEND.decrypt(total, key), 2 * values)


@given(index=st.integers(0, 2047), by=st.sampled_from([-1, 1, 7]), size=st.sampled_from([1, 3000]))
@settings(max_examples=25, deadline=None)
def test_an_opening_that_is_off_by_one_anywhere_is_noticed(index, by, size):
    keys = [OneTimeKey.fresh(SEED) for _ in range(3)]
    total = add(
        [encrypted(some_coefficients(i, size), key) for i, key in enumerate(keys)], max_nodes=3
    )
    wrong = sum(key.secret for key in keys)
    wrong[index] += by
    with pytest.raises(BadOpening, match="opened key is wrong: row 0"):
        BACKEND.decrypt(total, OneTimeKey.of_sum(wrong, SEED))


def test_the_keys_of_another_set_of_nodes_or_another_attempt_do_not_open():
    keys = [OneTimeKey.fresh(SEED) for _ in range(3)]
    values = some_coefficients(0, 100)
    total = add([encrypted(values, key) for key in keys], max_nodes=3)
    for secret, seed in (
        (keys[0].secret + keys[1].secret, SEED),
        (sum(key.secret for key in keys), bytes(32)),
        (np.zeros(2048, np.int64), SEED),
    ):
        with pytest.raises(BadOpening):
            BACKEND.decrypt(total, OneTimeKey.of_sum(secret, seed))


@pytest.mark.parametrize("row", [0, 1, 40, 49])
def test_a_coefficient_that_has_to_be_zero_is_looked_at_in_every_row(row):
    key = OneTimeKey.fresh(SEED)
    ciphertext = encrypted(some_coefficients(0, 49 * 2047 + 1), key)
    total = shifted(ciphertext, row * 2048, 1 << P.guard_bits)
    with pytest.raises(BadOpening, match=f"row {row} "):
        BACKEND.decrypt(total, opening_of(key))


@pytest.mark.parametrize("nodes", [1, 10, 780])
def test_the_noise_of_all_nodes_passes_and_one_more_does_not(nodes):
    parameters = one_time(nodes, 1)
    backend = OneTimeBackend(parameters)
    none = OneTimeKey.of_sum(np.zeros(2048, np.int64), SEED)
    for noise in (42 * nodes, -42 * nodes):
        c0 = np.array([noise % MODULUS, noise % MODULUS], np.uint64)
        assert backend.decrypt(Ciphertext(c0, NO_C1), none).tolist() == [0]
        c0[0] = (noise + (1 if noise > 0 else -1)) % MODULUS
        with pytest.raises(BadOpening):
            backend.decrypt(Ciphertext(c0, NO_C1), none)


def test_a_wrong_key_is_found_by_the_noise_even_where_the_check_coefficient_opens_as_0():
    key, lie = OneTimeKey.fresh(SEED), OneTimeKey.fresh(SEED)
    wrong = OneTimeKey.of_sum(key.secret + lie.secret, SEED)
    c0 = BACKEND.encrypt(some_coefficients(0, 40), key).c0.copy()
    secret = (wrong.secret % MODULUS).astype(np.uint64).reshape(1, 2048)
    mask = ring_numpy.products(uniform_rows(SEED, 0, 1), ring_numpy.transform(secret)[0])
    c0[0] = MODULUS - int(mask.ravel()[0])
    with pytest.raises(BadOpening, match="the noise has a mean square"):
        BACKEND.decrypt(Ciphertext(c0, NO_C1), wrong)


def test_a_key_encrypts_once():
    key = OneTimeKey.fresh(SEED)
    BACKEND.encrypt(np.array([1]), key)
    with pytest.raises(PrivacyError, match="used before"):
        BACKEND.encrypt(np.array([1]), key)


def test_an_opened_sum_of_keys_encrypts_nothing():
    with pytest.raises(PrivacyError, match="is a sum of keys"):
        BACKEND.encrypt(np.array([1]), opening_of(OneTimeKey.fresh(SEED)))


def test_the_group_key_neither_encrypts_nor_opens():
    group = BACKEND.generate_key()
    assert group.backend == "one-time-key"
    assert len(group.secret.reveal()) == 32
    with pytest.raises(PrivacyError, match="needs a one-time key; got a shared key"):
        BACKEND.encrypt(np.array([1]), group)
    with pytest.raises(PrivacyError, match="got none"):
        BACKEND.decrypt(Ciphertext(np.zeros(2, np.uint64), NO_C1), None)


def test_noise_is_small_centred_binomial_and_never_shared():
    updates = [
        noise_of(some_coefficients(3, 2047 * rows), OneTimeKey.fresh(SEED)) for rows in (1, 1, 70)
    ]
    noise = np.concatenate(updates)
    assert np.abs(noise).max() <= 42
    # Six standard errors of the variance of so many samples.
    assert abs(noise.var() - 21) < 6 * 21 * (2 / noise.size) ** 0.5
    for i in range(len(noise)):
        for j in range(i):
            # Independent noise agrees in about 6 % of the places.
            assert np.count_nonzero(noise[i] == noise[j]) < 0.12 * 2048


def test_secrets_are_fresh_and_small():
    keys = [OneTimeKey.fresh(SEED) for _ in range(20)]
    secrets = np.array([key.secret for key in keys])
    assert secrets.dtype == np.int64
    assert np.abs(secrets).max() <= 42
    assert abs(secrets.var() - 21) < 6 * 21 * (2 / secrets.size) ** 0.5
    assert len({row.tobytes() for row in secrets}) == 20


def test_a_key_shows_itself_nowhere():
    key = OneTimeKey.fresh(SEED)
    shown = f"OneTimeKey(public_seed=0x{SEED.hex()}, <redacted>)"
    assert repr(key) == str(key) == f"{key}" == shown
    for leak in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="holds a secret"):
            leak(key)
    with pytest.raises(ValueError, match="read-only"):
        key.secret[0] = 1


@pytest.mark.parametrize(
    ("secret", "seed", "message"),
    [
        (np.zeros(2047, np.int64), SEED, "not 2048 signed integers"),
        (np.zeros((1, 2048), np.int64), SEED, "not 2048 signed integers"),
        (np.zeros(2048, np.uint64), SEED, "not 2048 signed integers"),
        (np.zeros(2048), SEED, "not 2048 signed integers"),
        (np.zeros(2048, np.int64), SEED[:-1], "this one has 31"),
    ],
)
def test_what_is_no_sum_of_secrets_is_refused(secret, seed, message):
    with pytest.raises(PrivacyError, match=message):
        OneTimeKey.of_sum(secret, seed)


@pytest.mark.parametrize("value", [42 * 780 + 1, -42 * 780 - 1])
def test_a_sum_that_is_too_large_is_a_bad_opening_before_anything_is_decrypted(value):
    secret = np.zeros(2048, np.int64)
    secret[-1] = value
    with pytest.raises(BadOpening, match="exceeds 32760") as caught:
        OneTimeKey.of_sum(secret, SEED)
    assert str(value) not in str(caught.value)


def test_the_largest_sum_of_secrets_is_one():
    key = OneTimeKey.of_sum(np.full(2048, 42 * 780, np.int32), SEED)
    assert key.secret.dtype == np.int64
    assert key.secret.tolist() == [32760] * 2048


PLACE = {
    "chain_id": 31337,
    "contract": "0x" + "aB" * 20,
    "task_id": "0x" + "11" * 32,
    "round_": 7,
    "attempt": 2,
}


def test_the_public_seed_is_the_specified_digest():
    expected = hashlib.sha256(
        b"twopm-flower/one-time-seed/v1\0"
        + (31337).to_bytes(32, "little")
        + b"\xab" * 20
        + b"\x11" * 32
        + (7).to_bytes(8, "little")
        + (2).to_bytes(4, "little")
    ).digest()
    assert public_seed(**PLACE) == expected
    assert public_seed(**{**PLACE, "contract": PLACE["contract"].lower()}) == expected


def test_every_part_of_the_place_enters_the_public_seed():
    changed = {
        "chain_id": 31338,
        "contract": "0x" + "ac" * 20,
        "task_id": "0x" + "12" * 32,
        "round_": 8,
        "attempt": 3,
    }
    seeds = {public_seed(**PLACE)} | {public_seed(**{**PLACE, n: v}) for n, v in changed.items()}
    assert len(seeds) == 6


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("chain_id", -1),
        ("chain_id", 1 << 256),
        ("chain_id", True),
        ("contract", "0x12"),
        ("task_id", "zz"),
        ("round_", 1 << 64),
        ("attempt", 1 << 32),
        ("attempt", 1.0),
    ],
)
def test_a_place_that_does_not_exist_has_no_seed(name, value):
    with pytest.raises(PrivacyError, match=name.strip("_").replace("chain_id", "chain id")):
        public_seed(**{**PLACE, name: value})


def test_a_large_update_takes_little_more_memory_than_its_ciphertext():
    values = np.ones(1_000_000, np.int64)
    [own], key = update_keys(BACKEND, 1, SEED)
    encrypted(values[:70_000], OneTimeKey.fresh(SEED))  # compiles
    tracemalloc.start()
    ciphertext = encrypted(values, own)
    _, after = tracemalloc.get_traced_memory()
    opened = BACKEND.decrypt(ciphertext, key)
    _, at_most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert np.array_equal(opened, values)
    assert after < ciphertext.c0.nbytes + 8_000_000
    assert at_most < ciphertext.c0.nbytes + opened.nbytes + 8_000_000


def test_a_small_update_never_imports_the_compiler():
    program = (
        "import sys, numpy as np\n"
        "from twopm_flower.privacy.one_time import OneTimeBackend\n"
        "from twopm_flower.privacy.one_time_key import OneTimeKey\n"
        "from twopm_flower.privacy.parameters import AdditiveParameters\n"
        "backend = OneTimeBackend(AdditiveParameters.derive('one-time-key', 3))\n"
        "backend.encrypt(np.arange(2000), OneTimeKey.fresh(bytes(32)))\n"
        "print([name for name in ('numba', 'tenseal', 'torch') if name in sys.modules])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == "[]\n"


def test_a_seeded_ciphertext_that_arrived_is_expanded_without_any_key():
    c0 = np.arange(5, dtype=np.uint64)
    arrived = SeededCiphertext(c0, np.empty((0, 64), np.uint8))
    assert np.array_equal(BACKEND.expand(arrived).c0, c0)

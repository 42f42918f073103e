"""SEAL as the oracle: a sum and the public a are its ciphertext, the summed key its secret key."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from privacy_factories import one_time, update_keys
from seal_oracle import phase_by_seal

from twopm_flower.privacy.ciphertext import add
from twopm_flower.privacy.one_time import OneTimeBackend
from twopm_flower.privacy.sampling import uniform_rows


@settings(max_examples=25, deadline=None)
@given(
    nodes=st.one_of(st.integers(1, 12), st.sampled_from([50, 100])),
    fields=st.integers(1, 3),
    size=st.one_of(st.integers(1, 2047), st.sampled_from([2048, 5000, 66_000])),
    seed=st.integers(0, 2**32),
)
def test_the_sum_is_seals_ciphertext_under_the_sum_of_the_keys(nodes, fields, size, seed):
    parameters = one_time(nodes, fields)
    backend = OneTimeBackend(parameters)
    rng = np.random.default_rng(seed)
    public = rng.bytes(32)
    bound = parameters.largest_coefficient
    parts = [rng.integers(-bound, bound, size, endpoint=True) for _ in range(min(nodes, 12))]
    parts += [np.full(size, bound)] * (nodes - len(parts))
    keys, key = update_keys(backend, nodes, public)
    encrypted = [backend.encrypt(part, own) for part, own in zip(parts, keys, strict=True)]
    total = add([backend.expand(seeded) for seeded in encrypted], max_nodes=nodes)
    expected = np.sum(parts, axis=0)
    assert np.array_equal(backend.decrypt(total, key), expected)

    last = (total.c0.size - 1) // 2048
    for row in {0, last}:
        c0 = np.zeros(2048, np.uint64)
        used = total.c0[row * 2048 : (row + 1) * 2048]
        c0[: used.size] = used
        phase = phase_by_seal(c0, uniform_rows(public, row, 1)[0], key.secret)
        carried = expected[row * 2047 : (row + 1) * 2047]
        noise = phase[: used.size] - np.concatenate([[0], carried << parameters.guard_bits])
        assert np.abs(noise).max() <= 42 * nodes


def test_seal_sees_that_another_key_does_not_open():
    parameters = one_time(3)
    backend = OneTimeBackend(parameters)
    [own], _ = update_keys(backend, 1)
    c0 = backend.encrypt(np.ones(2047, np.int64), own).c0
    wrong = own.secret.copy()
    wrong[7] += 1
    a = uniform_rows(own.public_seed, 0, 1)[0]
    assert abs(phase_by_seal(c0, a, own.secret)[0]) <= 42
    assert abs(phase_by_seal(c0, a, wrong)[0]) > 1 << 20

"""SEAL as the oracle: a sum and the public a are its ciphertext, the summed key its secret key.

SEAL does all the arithmetic of the check. Its CKKS decryptor returns the bare phase
``c0 + a * s``, which carries the integers above the guard bits and the noise below; that of
BFV would scale by q / t, which no power of two is.
"""

import struct

import numpy as np
import tenseal.sealapi as seal
from hypothesis import given, settings
from hypothesis import strategies as st
from privacy_factories import one_time, update_keys

from twopm_flower.privacy import seal_format
from twopm_flower.privacy.ciphertext import add
from twopm_flower.privacy.one_time import OneTimeBackend
from twopm_flower.privacy.residues import MODULUS
from twopm_flower.privacy.sampling import uniform_rows
from twopm_flower.privacy.scratch import ScratchFile


def seal_context(scheme):
    settings_ = seal.EncryptionParameters(scheme)
    settings_.set_poly_modulus_degree(2048)
    settings_.set_coeff_modulus(seal.CoeffModulus.Create(2048, [54]))
    if scheme == seal.SCHEME_TYPE.BFV:
        settings_.set_plain_modulus(seal.Modulus(1 << 20))
    context = seal.SEALContext(settings_, True, seal.SEC_LEVEL_TYPE.TC128)
    assert settings_.coeff_modulus()[0].value() == MODULUS
    return context, struct.pack("<4Q", *context.first_parms_id())


# BFV alone transforms ciphertexts to and fro; CKKS alone decrypts without scaling.
BFV, BFV_ID = seal_context(seal.SCHEME_TYPE.BFV)
CKKS, CKKS_ID = seal_context(seal.SCHEME_TYPE.CKKS)


def by_seal(first, second, *, ntt):
    """Both polynomials transformed by SEAL, or back where they are transforms (`ntt`)."""
    carrier = seal.Ciphertext()
    with ScratchFile() as scratch:
        scratch.write(seal_format.write_ciphertext(first, second, BFV_ID, ntt=ntt))
        carrier.load(BFV, scratch.path)
        evaluator = seal.Evaluator(BFV)
        if ntt:
            evaluator.transform_from_ntt_inplace(carrier)
        else:
            evaluator.transform_to_ntt_inplace(carrier)
        carrier.save(scratch.path)
        return seal_format.read_ciphertext(scratch.read(), BFV_ID, ntt=not ntt)


def phase_by_seal(c0, a, secret):
    """The centred coefficients of ``c0 + a * secret``; `a` is given by its transform."""
    c0_ntt, secret_ntt = by_seal(c0, (secret % MODULUS).astype(np.uint64), ntt=False)
    ciphertext, key, plaintext = seal.Ciphertext(), seal.SecretKey(), seal.Plaintext()
    with ScratchFile() as scratch:
        scratch.write(seal_format.write_ciphertext(c0_ntt, a, CKKS_ID, ntt=True))
        ciphertext.load(CKKS, scratch.path)
        scratch.write(seal_format.write_secret_key(secret_ntt, CKKS_ID))
        key.load(CKKS, scratch.path)
    seal.Decryptor(CKKS, key).decrypt(ciphertext, plaintext)
    phase_ntt = np.array([plaintext.data(i) for i in range(2048)], np.uint64)
    phase, _ = by_seal(phase_ntt, phase_ntt, ntt=True)
    return np.array([int(x) - MODULUS * (int(x) > MODULUS // 2) for x in phase])


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

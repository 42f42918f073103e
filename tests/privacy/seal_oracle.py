"""SEAL's own arithmetic on our residues: transforms, phases and products with plaintexts.

Its CKKS decryptor returns the bare phase ``c0 + a * s``, which carries integers above the guard
bits and noise below; that of BFV would scale by q / t, which no power of two is.
"""

import struct

import numpy as np
import tenseal.sealapi as seal

from twopm_flower.privacy import seal_format
from twopm_flower.privacy.residues import MODULUS
from twopm_flower.privacy.scratch import ScratchFile

PLAIN_MODULUS = 1 << 30


def seal_context(scheme):
    settings_ = seal.EncryptionParameters(scheme)
    settings_.set_poly_modulus_degree(2048)
    settings_.set_coeff_modulus(seal.CoeffModulus.Create(2048, [54]))
    if scheme == seal.SCHEME_TYPE.BFV:
        settings_.set_plain_modulus(seal.Modulus(PLAIN_MODULUS))
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


def times_plain_by_seal(first, second, polynomial):
    """Both polynomials times one of small signed integers, by SEAL's ``multiply_plain``."""
    terms = [
        f"{int(c) % PLAIN_MODULUS:X}x^{i}" for i, c in reversed(list(enumerate(polynomial))) if c
    ]
    carrier = seal.Ciphertext()
    with ScratchFile() as scratch:
        scratch.write(seal_format.write_ciphertext(first, second, BFV_ID, ntt=False))
        carrier.load(BFV, scratch.path)
        seal.Evaluator(BFV).multiply_plain_inplace(carrier, seal.Plaintext(" + ".join(terms)))
        carrier.save(scratch.path)
        return seal_format.read_ciphertext(scratch.read(), BFV_ID, ntt=False)

"""The TenSEAL backend against SEAL itself: its own sums, decryption, generator and noise."""

import os
import struct
from pathlib import Path

import numpy as np
import pytest
import tenseal.sealapi as seal
from privacy_factories import bfv

from twopm_flower.errors import PrivacyError
from twopm_flower.privacy import scratch as scratch_module
from twopm_flower.privacy import seal_format
from twopm_flower.privacy.ciphertext import Ciphertext, add
from twopm_flower.privacy.residues import MODULUS
from twopm_flower.privacy.scratch import ScratchFile
from twopm_flower.privacy.tenseal_bfv import BfvBackend

P = bfv(10)


def seal_context(parameters):
    settings = seal.EncryptionParameters(seal.SCHEME_TYPE.BFV)
    settings.set_poly_modulus_degree(2048)
    settings.set_coeff_modulus(seal.CoeffModulus.Create(2048, [54]))
    settings.set_plain_modulus(seal.Modulus(1 << parameters.plain_bits))
    return seal.SEALContext(settings, True, seal.SEC_LEVEL_TYPE.TC128)


CONTEXT = seal_context(P)
PARMS_ID = struct.pack("<4Q", *CONTEXT.first_parms_id())


def into_seal(ciphertext, path):
    c0 = np.zeros(2048, np.uint64)
    c0[: ciphertext.c0.size] = ciphertext.c0
    path.write_bytes(seal_format.write_ciphertext(c0, ciphertext.c1[0], PARMS_ID))
    loaded = seal.Ciphertext()
    loaded.load(CONTEXT, str(path))
    return loaded


def out_of_seal(ciphertext, path):
    ciphertext.save(str(path))
    return seal_format.read_ciphertext(path.read_bytes(), PARMS_ID)


def open_files():
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def some_coefficients(seed, size=2048):
    bound = 1 << (P.plain_bits - 6)
    return np.random.default_rng(seed).integers(-bound, bound, size)


def test_the_numpy_sum_is_bit_identical_to_seals_add_many(tmp_path):
    backend = BfvBackend(P)
    key = backend.generate_key()
    parts = [backend.expand(backend.encrypt(some_coefficients(i), key)) for i in range(10)]
    total = add(parts, max_nodes=10)
    by_seal = seal.Ciphertext()
    loaded = [into_seal(part, tmp_path / "part") for part in parts]
    seal.Evaluator(CONTEXT).add_many(loaded, by_seal)
    c0, c1 = out_of_seal(by_seal, tmp_path / "sum")
    assert np.array_equal(c0, total.c0)
    assert np.array_equal(c1, total.c1[0])


def test_seals_own_keys_and_decryptor_agree_with_ours(tmp_path):
    backend = BfvBackend(P)
    key = backend.generate_key()
    with ScratchFile() as scratch:
        secret = backend._secret_key(key, scratch)
    values = some_coefficients(1)
    ours = into_seal(backend.expand(backend.encrypt(values, key)), tmp_path / "ours")
    decryptor, plain = seal.Decryptor(CONTEXT, secret), seal.Plaintext()
    decryptor.decrypt(ours, plain)
    t = 1 << P.plain_bits
    assert [plain.data(i) for i in range(2048)] == (values % t).tolist()
    # The polynomial 7 x^3 + 5 in SEAL's own notation, encrypted by SEAL alone.
    theirs = seal.Ciphertext()
    seal.Encryptor(CONTEXT, secret).encrypt_symmetric(seal.Plaintext("7x^3 + 5"), theirs)
    c0, c1 = out_of_seal(theirs, tmp_path / "theirs")
    found = backend.decrypt(Ciphertext(c0, c1.reshape(1, 2048)), key)
    assert found[:5].tolist() == [5, 0, 0, 7, 0]
    assert not found[5:].any()


def test_the_noise_of_the_largest_sum_leaves_room_in_seals_own_estimate(tmp_path):
    backend = BfvBackend(P)
    key = backend.generate_key()
    parts = [backend.expand(backend.encrypt(some_coefficients(i), key)) for i in range(10)]
    with ScratchFile() as scratch:
        decryptor = seal.Decryptor(CONTEXT, backend._secret_key(key, scratch))
    total = into_seal(add(parts, max_nodes=10), tmp_path / "sum")
    assert decryptor.invariant_noise_budget(total) >= 1


def test_the_uniform_half_is_blake2xb_reduced_by_rejection():
    backend = BfvBackend(P)
    seeded = backend.encrypt(some_coefficients(0), backend.generate_key())
    words = struct.unpack("<8Q", seeded.seeds[0].tobytes())
    generator = seal.Blake2xbPRNG(list(words))
    stream = [generator.generate() | generator.generate() << 32 for _ in range(2048)]
    # SEAL redraws a word in the last, incomplete multiple of q: one in 2**37 words.
    largest = (2**64 - 1) - (2**64 - 1) % MODULUS - 1
    fits = [word < largest for word in stream]
    c1 = backend.expand(seeded).c1[0].tolist()
    assert all(c == w % MODULUS for c, w, ok in zip(c1, stream, fits, strict=True) if ok)
    assert sum(fits) > 2000


def test_fresh_ciphertexts_never_share_a_seed():
    backend = BfvBackend(P)
    key = backend.generate_key()
    seeds = [
        row.tobytes()
        for _ in range(5)
        for row in backend.encrypt(np.zeros(5000, np.int64), key).seeds
    ]
    assert len(set(seeds)) == len(seeds) == 15


def test_residues_of_a_ciphertext_look_uniform_though_the_message_is_zero():
    backend = BfvBackend(P)
    zeros = np.zeros(20_480, np.int64)
    c = backend.expand(backend.encrypt(zeros, backend.generate_key()))
    for half in (c.c0, c.c1.ravel()):
        counts, _ = np.histogram(half.astype(np.float64), bins=16, range=(0, MODULUS))
        assert abs(counts - half.size / 16).max() < 6 * np.sqrt(half.size / 16)


def test_a_key_is_ternary_with_each_coefficient_about_equally_often():
    secret = np.frombuffer(BfvBackend(P).generate_key().secret.reveal(), np.uint8)
    pairs = ((secret[:, None] >> np.array([0, 2, 4, 6])) & 3).ravel()
    counts = np.bincount(pairs, minlength=4)
    assert counts[3] == 0
    assert counts[:3].min() > 550


def test_nothing_is_written_to_a_disk(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    backend = BfvBackend(P)
    key = backend.generate_key()
    backend.decrypt(backend.expand(backend.encrypt(some_coefficients(0), key)), key)
    assert list(tmp_path.iterdir()) == []


def test_no_file_descriptor_is_left_open_even_after_an_error():
    backend = BfvBackend(P)
    key = backend.generate_key()
    backend.encrypt(some_coefficients(0), key)
    before = open_files()
    backend.encrypt(some_coefficients(0), key)
    with pytest.raises(PrivacyError):
        backend.encrypt(some_coefficients(0), None)
    assert open_files() == before


def test_without_memfd_a_private_temporary_file_is_used_and_removed(tmp_path, monkeypatch):
    monkeypatch.delattr(os, "memfd_create")
    monkeypatch.setattr(scratch_module.tempfile, "tempdir", str(tmp_path))
    with ScratchFile() as scratch:
        assert scratch.path.startswith(str(tmp_path))
        assert Path(scratch.path).stat().st_mode & 0o777 == 0o600
        scratch.write(b"a longer piece")
        scratch.write(b"short")
        assert scratch.read() == b"short"
    assert list(tmp_path.iterdir()) == []
    backend = BfvBackend(P)
    key = backend.generate_key()
    values = some_coefficients(4)
    assert np.array_equal(
        backend.decrypt(backend.expand(backend.encrypt(values, key)), key), values
    )
    assert list(tmp_path.iterdir()) == []


# What SEAL saves is read strictly: another version must not be misread in silence.


def saved_seeded(tmp_path):
    backend = BfvBackend(P)
    with ScratchFile() as scratch:
        secret = backend._secret_key(backend.generate_key(), scratch)
    path = tmp_path / "seeded"
    seal.Encryptor(CONTEXT, secret).encrypt_symmetric(seal.Plaintext("1")).save(str(path))
    return path.read_bytes()


@pytest.mark.parametrize("position", range(16))
def test_another_header_than_that_of_the_pinned_seal_is_refused(tmp_path, position):
    data = bytearray(saved_seeded(tmp_path))
    data[position] ^= 1
    with pytest.raises(PrivacyError, match=r"tenseal==0\.3\.18"):
        seal_format.read_seeded(bytes(data), PARMS_ID)


def test_objects_of_another_kind_or_other_parameters_are_refused(tmp_path):
    data = saved_seeded(tmp_path)
    c0, seed = seal_format.read_seeded(data, PARMS_ID)
    assert (c0.size, len(seed)) == (2048, 64)
    for read in (
        lambda: seal_format.read_seeded(data, bytes(32)),
        lambda: seal_format.read_ciphertext(data, PARMS_ID),
        lambda: seal_format.read_plaintext(data),
        lambda: seal_format.read_seeded(data[:-1], PARMS_ID),
        lambda: seal_format.read_seeded(data[:20], PARMS_ID),
        lambda: seal_format.read_seeded(b"", PARMS_ID),
        lambda: seal_format.read_seeded(data + b"\0", PARMS_ID),
    ):
        with pytest.raises(PrivacyError, match="TenSEAL saved"):
            read()

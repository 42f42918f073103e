"""The TenSEAL backend: BFV with exact integer sums, symmetric and seeded.

TenSEAL's own tensors need two primes and resend what a seed would say. Its wrapper of
SEAL, ``tenseal.sealapi``, takes ring degree 2048 with one prime of 54 bits, and keeps the
seed of a symmetric ciphertext: half the bytes, and adding is adding residues.
"""

import secrets
import struct
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import tenseal.sealapi as seal

from twopm_flower.errors import ConfigError, KeyCeremonyError, PrivacyError
from twopm_flower.privacy import seal_format
from twopm_flower.privacy.backend import Coefficients, Key
from twopm_flower.privacy.ciphertext import SEED_BYTES, Ciphertext, SeededCiphertext
from twopm_flower.privacy.keys import SecretBytes, SharedKey
from twopm_flower.privacy.parameters import RING_DEGREE, AdditiveParameters
from twopm_flower.privacy.residues import MODULUS, RESIDUE_BITS, Residues
from twopm_flower.privacy.scratch import ScratchFile

SECRET_BYTES = RING_DEGREE // 4
"""Two bits per coefficient of the ternary secret: 0, 1, and 2 for -1."""

_FEWEST_NONZERO = RING_DEGREE // 2
_COMPILE_AFTER_ROWS = 512
_SHIFTS = np.array([0, 2, 4, 6], np.uint8)


class BfvBackend:
    """Encrypts with SEAL's BFV scheme at 128-bit security.

    Parameters
    ----------
    parameters : AdditiveParameters
        Those of the backend ``bfv``.

    Raises
    ------
    ConfigError
        If SEAL does not accept the parameters.
    """

    name: ClassVar[str] = "bfv"
    needs_key: ClassVar[bool] = True

    def __init__(self, parameters: AdditiveParameters) -> None:
        settings = seal.EncryptionParameters(seal.SCHEME_TYPE.BFV)
        settings.set_poly_modulus_degree(RING_DEGREE)
        settings.set_coeff_modulus(seal.CoeffModulus.Create(RING_DEGREE, [RESIDUE_BITS]))
        settings.set_plain_modulus(seal.Modulus(1 << parameters.plain_bits))
        self._context = seal.SEALContext(settings, True, seal.SEC_LEVEL_TYPE.TC128)
        if not self._context.parameters_set():
            raise ConfigError(
                f"SEAL refuses the parameters: {self._context.parameters_error_message()}."
            )
        if settings.coeff_modulus()[0].value() != MODULUS:
            raise ConfigError(f"SEAL's 54-bit prime is not {MODULUS:#x}; nodes could not agree.")
        self._parms_id = struct.pack("<4Q", *self._context.first_parms_id())
        self._plain_bits = parameters.plain_bits
        self._rows_expanded = 0

    def generate_key(self) -> SharedKey:
        """Return a fresh key: 2048 uniform ternary coefficients of the system's randomness."""
        kept = np.empty(0, np.uint8)
        while kept.size < RING_DEGREE:
            pairs = _unpack_pairs(secrets.token_bytes(RING_DEGREE))
            kept = np.concatenate([kept, pairs[pairs != 3]])
        pairs = kept[:RING_DEGREE].reshape(-1, 4) << _SHIFTS
        secret = np.bitwise_or.reduce(pairs, axis=1).astype(np.uint8).tobytes()
        return SharedKey(self.name, SecretBytes(secret))

    def encrypt(self, coefficients: Coefficients, key: Key) -> SeededCiphertext:
        """Return a fresh encryption of `coefficients`, an int64 array of shape (C,).

        Raises
        ------
        PrivacyError
            If a coefficient is out of range, or the key is missing or of another backend.
        """
        bound = 1 << (self._plain_bits - 1)
        if int(coefficients.max()) >= bound or int(coefficients.min()) <= -bound:
            raise PrivacyError(f"A coefficient does not fit {self._plain_bits} bits with its sign.")
        mask = np.int64((1 << self._plain_bits) - 1)
        rows = -(-coefficients.size // RING_DEGREE)
        c0 = np.empty((rows, RING_DEGREE), np.uint64)
        seeds = np.empty((rows, SEED_BYTES), np.uint8)
        plaintext = seal.Plaintext()
        with ScratchFile() as scratch:
            encryptor = seal.Encryptor(self._context, self._secret_key(key, scratch))
            for row in range(rows):
                values = coefficients[row * RING_DEGREE : (row + 1) * RING_DEGREE] & mask
                scratch.write(seal_format.write_plaintext(values.view(np.uint64)))
                plaintext.load(self._context, scratch.path)
                encryptor.encrypt_symmetric(plaintext).save(scratch.path)
                c0[row], seed = seal_format.read_seeded(scratch.read(), self._parms_id)
                seeds[row] = np.frombuffer(seed, np.uint8)
        return SeededCiphertext(c0.ravel()[: coefficients.size], seeds)

    def expand(self, ciphertext: SeededCiphertext) -> Ciphertext:
        """Return the ciphertext with c1 grown from the seeds; needs no key.

        The first five hundred rows of a backend are grown by SEAL. Who goes on, such as a
        server that adds large updates, has it done by code compiled for that, four times
        as fast and bit for bit the same.
        """
        self._rows_expanded += len(ciphertext.seeds)
        if self._rows_expanded > _COMPILE_AFTER_ROWS:
            from twopm_flower.privacy.seal_sampler import grow  # noqa: PLC0415

            return ciphertext.with_c1(grow(ciphertext.seeds))
        return ciphertext.with_c1(self._grown_by_seal(ciphertext))

    def _grown_by_seal(self, ciphertext: SeededCiphertext) -> Residues:
        c1 = np.empty((len(ciphertext.seeds), RING_DEGREE), np.uint64)
        loaded = seal.Ciphertext()
        with ScratchFile() as scratch:
            for row, seed in enumerate(ciphertext.seeds):
                scratch.write(seal_format.write_seeded(seed.tobytes(), self._parms_id))
                loaded.load(self._context, scratch.path)
                loaded.save(scratch.path)
                _, c1[row] = seal_format.read_ciphertext(scratch.read(), self._parms_id)
        return c1

    def decrypt(self, ciphertext: Ciphertext, key: Key) -> Coefficients:
        """Return the coefficients of `ciphertext`, or their sum for a sum of ciphertexts.

        Decryption of at most ``max_nodes`` fresh ciphertexts cannot fail, by the formulas
        of `AdditiveParameters`; under a wrong key the result is noise.

        Raises
        ------
        PrivacyError
            If the key is missing or of another backend.
        """
        size = ciphertext.c0.size
        opened = np.zeros(size, np.int64)
        c0 = np.zeros(RING_DEGREE, np.uint64)
        loaded, plaintext = seal.Ciphertext(), seal.Plaintext()
        with ScratchFile() as scratch:
            decryptor = seal.Decryptor(self._context, self._secret_key(key, scratch))
            for row, c1 in enumerate(ciphertext.c1):
                start, stop = row * RING_DEGREE, min((row + 1) * RING_DEGREE, size)
                # Whatever stands in the unused coefficients of the last row is never read.
                c0[: stop - start] = ciphertext.c0[start:stop]
                scratch.write(seal_format.write_ciphertext(c0, c1, self._parms_id))
                loaded.load(self._context, scratch.path)
                decryptor.decrypt(loaded, plaintext)
                plaintext.save(scratch.path)
                values = seal_format.read_plaintext(scratch.read())[: stop - start]
                opened[start : start + values.size] = values
        half = np.int64(1 << (self._plain_bits - 1))
        # The sign bit of an integer modulo 2**tau, extended.
        opened ^= half
        opened -= half
        return opened

    def _secret_key(self, key: Key, scratch: ScratchFile) -> seal.SecretKey:
        if not isinstance(key, SharedKey) or key.backend != self.name:
            raise PrivacyError(
                f"The backend {self.name!r} needs a key of its own; got "
                f"{'none' if key is None else repr(key.backend)}.",
                hint="Create one with `twopm keys`, or accept the one that was dealt.",
            )
        residues = _ternary_residues(key.secret.reveal())
        # SEAL keeps secret keys in NTT form, and its transform takes ciphertexts only.
        scratch.write(seal_format.write_ciphertext(residues, residues, self._parms_id))
        carrier = seal.Ciphertext()
        carrier.load(self._context, scratch.path)
        seal.Evaluator(self._context).transform_to_ntt_inplace(carrier)
        carrier.save(scratch.path)
        transformed, _ = seal_format.read_ciphertext(scratch.read(), self._parms_id, ntt=True)
        scratch.write(seal_format.write_secret_key(transformed, self._parms_id))
        loaded = seal.SecretKey()
        loaded.load(self._context, scratch.path)
        return loaded


def _unpack_pairs(data: bytes) -> npt.NDArray[np.uint8]:
    """Return the two-bit groups of `data`, lowest first."""
    pairs: npt.NDArray[np.uint8] = np.frombuffer(data, np.uint8)[:, None] >> _SHIFTS
    return (pairs & np.uint8(3)).ravel()


def _ternary_residues(secret: bytes) -> Residues:
    """Return the coefficients of a secret modulo q, checked: a weak one reveals updates."""
    if len(secret) != SECRET_BYTES:
        raise KeyCeremonyError(
            f"A BFV secret has {SECRET_BYTES} bytes; this one has {len(secret)}."
        )
    pairs = _unpack_pairs(secret)
    if (pairs == 3).any() or np.count_nonzero(pairs) < _FEWEST_NONZERO:
        raise KeyCeremonyError(
            "The BFV secret is not a uniform ternary polynomial.",
            hint="Ask the dealer for a key that `twopm keys` generated.",
        )
    return np.array([0, 1, MODULUS - 1], np.uint64)[pairs]
